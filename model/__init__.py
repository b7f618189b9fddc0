"""The networks: every model, the layers they share, their settings and their model files' format."""
