"""Experiments: a baseline and treatments over the same rows and seeds, what they come to, and what people prefer."""
