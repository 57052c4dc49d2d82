"""Trackers that what a run records can go out to, one file each; `worker.tracking` says what one is."""
