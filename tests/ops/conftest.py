"""Lets the tests of this folder import the runner, which is a script with its parts beside it."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
