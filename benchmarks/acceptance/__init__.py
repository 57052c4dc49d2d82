"""A walk through what the project promises, over HTTP; `python -m benchmarks.acceptance` writes it up."""
