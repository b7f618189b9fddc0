"""The demo corpus: drawn faces, synthetic voices, known engagement, official folder layouts.

`composition` says who talks to whom and where files lie, `truth` makes the latent engagement,
`behaviour` turns it into head poses and voices, `face` draws, `session` writes a session,
`weights` makes small checkpoints in the real on-disk formats. See docs/demo.md.
"""

from corpora.demo.composition import session_files, sheet_rows, weights_files

__all__ = ["session_files", "sheet_rows", "weights_files"]
