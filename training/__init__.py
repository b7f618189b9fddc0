"""Training: from aligned sessions to a model file."""
