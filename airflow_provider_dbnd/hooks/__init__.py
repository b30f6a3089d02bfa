"""Airflow's connections and configuration, as the core takes them."""
