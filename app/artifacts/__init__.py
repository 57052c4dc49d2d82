"""The files that jobs leave behind, and their download."""
