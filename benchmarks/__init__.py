"""Benchmarks against the targets of this package: ``python -m benchmarks``."""
