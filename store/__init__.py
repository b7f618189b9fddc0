"""File formats every stage reads and writes: the feature contract (HDF5) and the sidecar (JSON)."""
