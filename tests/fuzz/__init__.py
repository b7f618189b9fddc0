"""Fuzzing of every parser: seeded mutations of valid files, and a hard rule for what may come out.

`python -m tests.fuzz --inputs 100000 --seed 0`; see tests/fuzz/__main__.py.
"""
