"""Utilities beside the tensor and layer API: hooks and data loading."""

from lohe.utils import data, hooks

__all__ = ["data", "hooks"]
