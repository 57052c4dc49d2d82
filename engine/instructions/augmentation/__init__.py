"""Instructions 13 to 18: more training examples out of those that are there."""
