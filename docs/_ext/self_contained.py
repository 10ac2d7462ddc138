"""The site needs no network: a page or style sheet that loads anything from elsewhere fails the build."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)
ELSEWHERE = re.compile(r"(?:https?:)?//")
IN_STYLES = re.compile(r"(?:url\(\s*|@import\s+)[\"']?((?:https?:)?//[^\"')\s]+)")
RELATIONS = {"stylesheet", "icon", "preload", "modulepreload", "preconnect", "dns-prefetch", "manifest"}


class Loaded(HTMLParser):
    """What a page loads by itself from elsewhere; links to follow are no part of it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at what this tag loads."""
        values = {name: value or "" for name, value in attrs}
        loaded = [values[name] for name in ("src", "srcset", "poster", "data") if name in values]
        if tag == "link" and RELATIONS & set(values.get("rel", "").split()):
            loaded.append(values.get("href", ""))
        self.addresses += [each for each in loaded if ELSEWHERE.match(each)]


def loaded_from_elsewhere(folder: Path) -> Iterator[tuple[Path, str]]:
    """Pages and style sheets in a folder, each with an address that it loads something from."""
    for page in sorted(folder.rglob("*.html")):
        for address in Loaded(page.read_text(encoding="utf-8")).addresses:
            yield page, address
    for sheet in sorted(folder.rglob("*.css")):
        for address in IN_STYLES.findall(sheet.read_text(encoding="utf-8")):
            yield sheet, address


def check(app: Sphinx, exception: Exception | None) -> None:
    """Warn, which fails the build, of all that is loaded from elsewhere."""
    if exception is None and app.builder.name == "html":
        for file, address in loaded_from_elsewhere(Path(app.outdir)):
            LOGGER.warning("%s loads %s", file.relative_to(app.outdir), address)


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("build-finished", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
