"""Compression, 43 to 48: a smaller model after or before training."""
