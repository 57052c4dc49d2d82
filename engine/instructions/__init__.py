"""The instructions: one band a folder, one instruction a file. Files know the core and nothing of each other."""
