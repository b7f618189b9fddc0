"""Recordings to features: one module per feature, one command and one documented output for each."""
