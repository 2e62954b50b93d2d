"""The machine: its hardware, its load, what is missing on it, and the origin of a result."""
