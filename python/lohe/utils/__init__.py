"""Utilities beside the tensor and layer API: hooks and data loading."""

import os

from lohe.utils import data, hooks

__all__ = ["cmake_prefix_path", "data", "hooks"]

#: Where an installed Lohe keeps its CMake package: pass it as CMAKE_PREFIX_PATH to find_package(lohe).
cmake_prefix_path: str = os.path.join(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "share", "cmake"
)
