"""Gradients, 19 to 25: how a step is made."""
