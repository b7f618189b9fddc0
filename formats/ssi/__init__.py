"""Files of the SSI framework (Social Signal Interpretation): streams and annotations.

The MultiMediate challenge ships features as streams; NOVA and DISCOVER read and write both kinds.
"""
