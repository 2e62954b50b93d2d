"""Explaining: why an approach is faster or slower, what to do about it, and the code for it."""
