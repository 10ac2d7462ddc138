"""Links from a page to a file of the repository outside of docs/ lead to it on GitHub; the file must exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)
LINK = re.compile(r"(?<=\]\()((?:\.\./)+[^)#\s]+)")


def rewrite(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put addresses in place of the paths that leave the folder of the pages."""
    page, docs = Path(app.env.doc2path(docname)), Path(app.srcdir)

    def address(found: re.Match[str]) -> str:
        path = (page.parent / found[1]).resolve()
        if path.is_relative_to(docs):
            return found[1]
        if not path.exists():
            LOGGER.warning("there is no %s in the repository", found[1], location=docname)
        return f"{app.config.repository_url}/{path.relative_to(docs.parent).as_posix()}"

    source[0] = LINK.sub(address, source[0])


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_config_value("repository_url", "", "env", str)
    app.connect("source-read", rewrite)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
