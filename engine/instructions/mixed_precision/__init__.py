"""Mixed precision, 26 to 30: which numbers the arithmetic uses."""
