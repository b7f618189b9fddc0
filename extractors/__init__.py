"""Recordings to features: one module, one command line, one documented output per feature."""
