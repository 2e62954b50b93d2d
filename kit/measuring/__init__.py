"""Measuring: interleaved rounds, their statistics, factors and bounds, the comparison that comes of them, and what it may decide."""
