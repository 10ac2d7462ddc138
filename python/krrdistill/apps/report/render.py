"""Pages from templates: all text that is not markup is escaped, and a page loads nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from krrdistill.apps.report.axes import LAMBDA, PALETTE
from krrdistill.apps.text import megabytes, number, percent, plain_number, seconds

__all__ = ["SCRIPT", "environment", "render"]

TEMPLATES = ("run.html", "compare.html", "publication.html")
SCRIPT = resources.files("krrdistill.apps.report").joinpath("templates", "page.js").read_text(encoding="utf-8")
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # of every page: it loads nothing


def render(template: str, **values: Any) -> bytes:
    """A page in UTF-8 from one of ``TEMPLATES``."""
    page = environment().get_template(template).render(values)
    return page.encode("utf-8", "xmlcharrefreplace")  # a lone surrogate in a name is no UTF-8


def breakable(name: str) -> Markup:
    """A long name that may be broken behind the borders of its words."""
    return Markup("<wbr>").join(re.split(r"(?<=[_/-])", name))


def _script_policy(script: str) -> str:
    """What a page with this script may do besides: run that very script."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return f"script-src 'sha256-{digest}'"


@cache
def environment() -> jinja2.Environment:
    """Where templates and what they may call come from. They are compiled on first use and kept."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("krrdistill.apps.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    found.filters.update(
        breakable=breakable,
        megabytes=megabytes,
        number=number,
        percent=percent,
        plain_number=plain_number,
        seconds=seconds,
    )
    found.globals.update(LAMBDA=LAMBDA, PALETTE=PALETTE, POLICY=_POLICY)
    found.globals.update(SCRIPT=Markup(SCRIPT), SCRIPT_POLICY=_script_policy(SCRIPT))
    return found
