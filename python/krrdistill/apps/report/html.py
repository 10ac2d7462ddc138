"""HTML and SVG elements as text; whatever is not markup already is escaped."""

from __future__ import annotations

import html
from importlib import resources

__all__ = ["Markup", "document", "element", "join"]

_VOID = {"br", "img", "input", "meta"}
_Child = str | None


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def _markup(child: _Child) -> str:
    if child is None:
        return ""
    return child if isinstance(child, Markup) else html.escape(child)


def join(*children: _Child, separator: str = "") -> Markup:
    """The children one after the other; None is left out."""
    return Markup(separator.join(_markup(child) for child in children if child is not None))


def element(name: str, /, *children: _Child, **attributes: str | float | None) -> Markup:
    """``<name attributes>children</name>``.

    ``class_`` is the attribute class, ``stroke_width`` is stroke-width; attributes that are None are left out.
    """
    words = [name]
    for key, value in attributes.items():
        if value is not None:
            words.append(f'{key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"')
    start = f"<{' '.join(words)}>"
    return Markup(start if name in _VOID else f"{start}{join(*children)}</{name}>")


def document(title: str, *body: _Child) -> bytes:
    """A whole page in UTF-8 with the style sheet of reports inside. It refers to nothing outside of itself."""
    style = resources.files("krrdistill.apps.report").joinpath("page.css").read_text(encoding="utf-8")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Markup(style)),
    )
    page = join(Markup("<!DOCTYPE html>\n"), element("html", head, element("body", *body), lang="en"), Markup("\n"))
    return page.encode("utf-8", "xmlcharrefreplace")  # a lone surrogate in a name is no UTF-8
