"""Reuse: a stored result stands for a run when code, inputs and parameters are the same by content."""
