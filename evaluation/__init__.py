"""Scores and tables: pooled CCC per dataset and split, session bootstrap, curves, exports."""
