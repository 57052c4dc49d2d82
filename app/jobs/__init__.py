"""Jobs: what they are, every state they can be in, and how they move from one to the next."""
