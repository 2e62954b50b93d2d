"""The kit against the plain code that one would write without it."""
