"""Measuring: interleaved rounds, their statistics and factors, the comparison of them, and what it may decide."""
