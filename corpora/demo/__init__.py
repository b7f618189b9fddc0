"""The demo corpus: drawn faces, synthetic voices, known engagement, official folder layouts.

`composition` says who talks to whom and where files lie, `truth` makes the latent engagement,
`behaviour` turns it into head poses and voices, `face` draws, `generate` writes a session,
`weights` makes small checkpoints in the real on-disk formats. See docs/demo.md.
"""
