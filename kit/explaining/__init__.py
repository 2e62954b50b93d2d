"""Explaining: the factors of a speed-up, its bounds, what to do about it, and the code to do it with."""
