"""Explaining: why an approach is as fast as it is, what to do about it, and the code to do it with."""
