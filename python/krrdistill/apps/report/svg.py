"""A chart as a PNG file, or as SVG in a page."""

from __future__ import annotations

import io
import re
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from krrdistill.apps.report.axes import PALETTE, own_style
from krrdistill.common.files import write_atomically

__all__ = ["for_page", "save_figure", "to_svg"]

DPI = 192  # of PNG files, 960 by 600 pixels
_DROPPED = ("clip-path", "version", "width", "height", "xmlns")


@own_style()
def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all, and without a date or version: equal figures, equal bytes.

    Raises
    ------
    OSError
        When the folder is missing, cannot be written or is full.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None}, pil_kwargs={"compress_level": 4})
    write_atomically(Path(path), lambda stream: stream.write(buffer.getvalue()))


@own_style()
def to_svg(figure: Figure, name: str, description: str) -> Markup:
    """The figure as an ``<svg>`` inside a page, in colours that the page's style sheet names.

    name : of this chart, which no other on the page has
    description : what a reader who does not see the chart is told
    """
    buffer = io.BytesIO()
    figure.patch.set_visible(False)
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": "krrdistill", "font.sans-serif": ["DejaVu Sans"]}
    ):
        figure.savefig(buffer, format="svg", metadata=nothing)
    root = ElementTree.fromstring(buffer.getvalue())
    for element in list(root.iter()):
        for child in list(element):
            if child.tag.endswith(("}style", "}metadata", "}clipPath")):
                element.remove(child)
    for element in root.iter():
        _inline(element, name)
    view = root.attrib.pop("viewBox")
    root.attrib.update({"viewBox": view, "role": "img", "aria-label": description, "class": "chart"})
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _inline(element: ElementTree.Element, name: str) -> None:
    """SVG without namespaces, clipping and needless digits; ids get the chart's name, colours those of the palette."""
    element.tag = element.tag.rpartition("}")[2]
    attributes = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    if element.tag == "image":  # with its size and exact place
        shown = {key: value for key, value in attributes.items() if key not in _DROPPED[:1]}
    else:
        shown = {key: for_page(value) for key, value in attributes.items() if key not in _DROPPED}
    if element.tag == "g":
        shown.pop("id", None)
    if "id" in shown:
        shown["id"] = f"{name}-{shown['id']}"
    if "href" in shown:
        shown["href"] = re.sub("^#", f"#{name}-", shown["href"])
    element.attrib.clear()
    element.attrib.update(shown)
    if element.tag != "text":
        element.text = None
    element.tail = None


def for_page(value: str) -> str:
    """Two decimals at most, no line breaks, and ``var(--name)`` for every colour of the palette."""
    for color, code in PALETTE.items():
        value = value.replace(code, f"var(--{color})")
    return re.sub(r"(\.\d\d)\d+", r"\1", value.replace("\n", " ")).strip()
