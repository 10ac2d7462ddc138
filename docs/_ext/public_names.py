"""The page of a public class links the public classes whose methods it has."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx

import krrdistill

PUBLIC = {value: name for name in krrdistill.__all__ if isinstance(value := getattr(krrdistill, name), type)}


def add_bases(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Add a line on the public bases of a class."""
    bases = [PUBLIC[base] for base in getattr(obj, "__bases__", ()) if base in PUBLIC]
    if what in ("class", "exception") and bases:
        lines += ["", f"It is a {' and a '.join(f':class:`krrdistill.{base}`' for base in bases)}.", ""]


def skip_metadata(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the methods that scikit-learn adds to every estimator, ``set_fit_request`` and the like."""
    return True if name.startswith("set_") and name.endswith("_request") else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("autodoc-skip-member", skip_metadata)
    app.connect("autodoc-process-docstring", add_bases, priority=900)  # after numpydoc
    return {"parallel_read_safe": True, "parallel_write_safe": True}
