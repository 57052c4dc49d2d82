"""Checks an uploaded file and stores it as Parquet: `python -m engine.ingest`. Never imports torch.

Runs as a child process under limits, since a file of a few bytes can unpack to any size. Knows nothing of HTTP or SQL.
"""
