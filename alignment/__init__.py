"""One time axis per session: clock, aligned features, labels, session index, export, quality check."""
