"""Preprocessing, 1 to 12: what the rows are before anything learns from them."""
