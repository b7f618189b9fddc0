"""One time axis per session: clock, aligned features, labels, export, quality check."""
