"""A walk through what the fourth issue promises, over HTTP; `python -m benchmarks.acceptance` writes it up."""
