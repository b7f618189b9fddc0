"""What holds the stages together: config, fingerprints, plan, preflight, digest."""
