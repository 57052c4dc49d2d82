"""The base models of this server and the models it has trained, in one list."""
