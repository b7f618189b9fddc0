"""Recordings to features: one module per feature, one command for all, and a documented output of each."""
