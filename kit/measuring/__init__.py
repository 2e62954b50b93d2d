"""Measuring: interleaved rounds, their statistics, and the comparison that comes of them."""
