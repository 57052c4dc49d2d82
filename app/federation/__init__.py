"""Federations: populations of clients, and rounds in which their updates become one private aggregate."""
