"""What `doctor --cluster` asks of compute nodes: the programs that run there, the job around them, the judgement."""
