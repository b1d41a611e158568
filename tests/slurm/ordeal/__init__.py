"""The ordeal: chains on a real Slurm under faults of every kind, and the proof that nothing came of them."""
