"""Checks and measurements on a GPU: one command, one part per question (see `python -m benchmarks.gpu --help`)."""
