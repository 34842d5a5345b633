"""Checkpoints that others have published, read exactly and written back: one file a family, both directions."""
