"""Quantisation-aware training, 49 to 52: training under the numbers that will ship."""
