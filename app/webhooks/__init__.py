"""Webhooks: who wants to hear of a job's end, what is to be told, and telling it until it is heard."""
