"""Transforms: each rewrites a model into another that computes the same, and leaves the original untouched."""

from kit.transforms.base import Transform

__all__ = ["Transform"]
