"""Data sets: streamed in, checked in a limited child process, stored as Parquet."""
