"""``python -m airflow_provider_dbnd.cli``."""

from airflow_provider_dbnd.cli.main import entry

if __name__ == "__main__":
    entry()
