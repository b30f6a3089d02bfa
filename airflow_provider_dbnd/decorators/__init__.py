"""What users write: decorators."""
