"""The article's ten instructions, each measured small: what it says, what is wrong in its code, what ours does."""
