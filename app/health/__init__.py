"""Alive, ready, measured: what an operator asks of the service."""
