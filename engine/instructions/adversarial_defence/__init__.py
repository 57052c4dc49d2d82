"""Adversarial defence, 31 to 36: training on, screening for and measuring of inputs that are made to fool a model."""
