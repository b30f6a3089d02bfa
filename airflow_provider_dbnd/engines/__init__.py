"""Where a task runs: one engine a file, its Airflow provider imported there and nowhere else."""
