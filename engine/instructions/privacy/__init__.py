"""Privacy, 37 to 42: what a trained model may tell of its rows."""
