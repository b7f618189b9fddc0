"""Corpora: sessions sheets of recordings on disk, and the demo corpus."""
