"""The catalogue of instructions, as the engine describes it."""
