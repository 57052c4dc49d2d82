"""Files as OpenAI's clients upload them; those to train on become data sets by the ordinary check."""
