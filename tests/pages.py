"""What holds for every page, and how one looks in headless Chromium."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page(HTMLParser):
    """Tags of a page, in order; fails where a tag is closed that is not the innermost open one."""

    VOID = frozenset({"meta", "img", "input", "br", "wbr"})

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.scripts: list[str] = []
        self.feed(content.decode())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" in self.open:
            self.scripts.append(data)
        elif "style" not in self.open:
            self.words += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def check_page(content: bytes) -> Page:
    """What holds for every page: balanced, our script at most, nothing from outside, alt texts, ids for its links."""
    page = Page(content)
    assert content.startswith(b"<!DOCTYPE html>")
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    ours = resources.files("krrdistill.apps.report").joinpath("templates", "page.js").read_text(encoding="utf-8")
    assert page.scripts in ([], [ours])
    assert len(page.all("script")) == len(page.scripts)
    for name, attributes in page.tags:
        assert not any(key.startswith("on") for key in attributes), name
        for key in ("href", "src"):
            assert re.match(r"#|data:image/(png|jpeg);base64,", attributes.get(key) or "#"), attributes
        if (attributes.get("href") or "").startswith("#"):
            assert (attributes["href"] or "")[1:] in ids
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in ids
    assert not re.search(rb"https?:|@import|url\(", content)
    assert all(attributes.get("alt") for attributes in page.all("img"))
    assert all(attributes.get("aria-label") for attributes in page.all("svg") if attributes.get("role") == "img")
    return page


def worked_on(page: Path, folder: Path, script: str) -> Page:
    """A page in headless Chromium after a script that is put at its end."""
    if CHROMIUM is None:
        pytest.skip("no chromium on the PATH")
    content = re.sub(r"<meta http-equiv=.*?>", "", page.read_text(encoding="utf-8"))
    copy = folder / "worked.html"
    copy.write_text(content.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
               "--dump-dom", copy.as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, timeout=120, check=True)
    return Page(done.stdout)


def screenshot(page: Path, folder: Path, *, size: str, scheme: str) -> Any:
    """RGB pixels of a page in headless Chromium: nothing is logged, and it is as dark as asked for."""
    if CHROMIUM is None:
        pytest.skip("no chromium on the PATH")
    imread = pytest.importorskip("matplotlib.image").imread
    shot = folder / "shot.png"
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr",
               f"--user-data-dir={folder / 'profile'}", *dark, f"--window-size={size}", f"--screenshot={shot}",
               page.as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr
    pixels = imread(shot)[..., :3]
    corner = pixels[:4, :4].mean()
    assert corner < 0.2 if scheme == "dark" else corner > 0.9
    return pixels
