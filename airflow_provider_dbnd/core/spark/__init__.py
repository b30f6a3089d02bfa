"""Spark: its session, its driver, and frames that go between executors and the store."""
