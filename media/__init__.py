"""Reading recordings: safe opening, probing, video frames and audio samples with true times."""
