"""The worker: claims jobs, runs the engine as a subprocess and writes down what it says. Never imports the engine."""
