"""Models of engagement: DA-Mamba, the per-frame baseline, training and prediction."""
