"""The launch: command line, submitit, sweep, status, report, doctor, cluster profiles, sbatch scripts."""
