"""Measuring: interleaved rounds, their statistics, the comparison of approaches, and when a verdict is allowed."""
