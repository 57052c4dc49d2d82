"""The user's side of fiftytwo: the HTTP client, the reader of a downloaded model, the command line. Never torch."""
