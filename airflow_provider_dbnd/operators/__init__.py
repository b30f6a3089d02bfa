"""Operators behind the decorators."""
