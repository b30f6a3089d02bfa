"""The dbnd command."""
