"""What pictures and pages need of other packages."""

from __future__ import annotations

import importlib.util

from krrdistill.errors import BackendUnavailable

__all__ = ["require_drawing"]


def require_drawing() -> None:
    """Raises BackendUnavailable, before any work, where the pictures of a run cannot be drawn."""
    for module, name in (("matplotlib", "matplotlib"), ("PIL", "pillow"), ("jinja2", "jinja2")):
        if importlib.util.find_spec(module) is None:
            raise BackendUnavailable(f'the pictures need {name}: pip install "krrdistill[cli]"')
