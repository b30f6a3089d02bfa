"""Sensors behind the decorators."""
