"""Kills at random moments; the end must be byte-equal to an undisturbed run.

`python -m tests.soak --kills 50 --seed 0`; see tests/soak/__main__.py.
"""
