"""Transforms: each rewrites a copy of a model, which computes the same output; the original is not changed."""

from kit.transforms.base import Transform

__all__ = ["Transform"]
