"""Prediction of whole sessions: in windows, in pieces with carried state, and frame by frame."""
