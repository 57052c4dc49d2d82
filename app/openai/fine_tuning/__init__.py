"""Training jobs as OpenAI's clients see them."""
