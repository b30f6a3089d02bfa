"""What runs anywhere: parameters, artifacts, formats, graphs and execution, without Airflow."""
