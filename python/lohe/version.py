"""The version of this package."""

__version__ = "0.1.0"
cuda = None
hip = None
debug = False
git_version = None
