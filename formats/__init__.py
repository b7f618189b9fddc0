"""File formats of others: SSI streams and annotations, label tables."""
