"""Formulas as pictures (SVG) that are drawn while the site is built: no script, no font, alike in every browser."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import ziamath
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import SphinxError

ziamath.config.svg2 = False  # paths in place of symbols, whose names formulas of one page would share
SIZE = 20  # units of a picture to 1 em
EM = 1.1  # of the text around it


def draw(latex: str, *, inline: bool) -> str:
    """The picture of a formula, in the colour and the size of the text around it; it stands on the line of the text."""
    try:
        picture = ziamath.Latex(latex, size=SIZE, inline=inline, color="currentColor", margin=0).svgxml()
    except Exception as error:
        raise SphinxError(f"this formula cannot be drawn: {latex}: {error}") from error
    _, top, width, height = (EM / SIZE * float(number) for number in picture.get("viewBox").split())
    picture.attrib |= {
        "width": f"{width:.3f}em",
        "height": f"{height:.3f}em",
        "style": f"vertical-align: {-(top + height):.3f}em",
        "role": "img",
        "aria-label": latex,
    }
    return ElementTree.tostring(picture, encoding="unicode")


def visit_inline(translator: Any, node: nodes.math) -> None:
    """Write a formula within text."""
    translator.body.append(f'<span class="math">{draw(node.astext(), inline=True)}</span>')
    raise nodes.SkipNode


def visit_block(translator: Any, node: nodes.math_block) -> None:
    """Write a formula on lines of its own."""
    translator.body.append(f'<div class="math-block">{draw(node.astext(), inline=False)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_html_math_renderer("svg", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
