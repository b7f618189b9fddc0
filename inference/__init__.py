"""DA-Mamba over whole sessions: piece by piece (carry) and frame by frame (stream)."""
