"""Single source of the version (read by the build)."""

__version__ = "0.1.0"
