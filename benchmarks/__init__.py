"""Measurements of speed and memory; no stage of the workflow imports them."""
