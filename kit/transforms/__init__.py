"""Transforms: each rewrites a model, and leaves the original as it was."""
