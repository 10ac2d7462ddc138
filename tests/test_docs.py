"""What the prose says of the repository: every path that it names exists."""

from __future__ import annotations

import ast
import itertools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *(ROOT / folder / "README.md" for folder in ("csrc", "benchmarks")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
FOLDERS = (ROOT, ROOT / "python" / "krrdistill", ROOT / "csrc", ROOT / "csrc" / "include")
SOURCE = re.compile(r"`((?:[\w.*/-]*\{[\w,]+\}|[\w.*/-]*[a-z0-9_*])\.(?:py|pyi|cpp|cu|h|md|toml))`")
TOP = "python|csrc|tests|docs|benchmarks|examples|cmake|apps|maps|ridge|construct|artifact"
PLACE = re.compile(rf"`((?:{TOP})/[\w./-]*)`")


def expanded(path: str) -> list[str]:
    """``a_{b,c}.h`` -> a_b.h, a_c.h."""
    parts = re.split(r"\{([\w,]+)\}", path)
    choices = [part.split(",") if index % 2 else [part] for index, part in enumerate(parts)]
    return ["".join(chosen) for chosen in itertools.product(*choices)]


def exists(path: str, page: Path) -> bool:
    """Beside the page, in a folder that paths start from, or, of a bare file name, anywhere in the sources."""
    if any(any(folder.glob(path)) for folder in FOLDERS) or (page.parent / path).exists():
        return True
    return "/" not in path and any(any((ROOT / top).rglob(path)) for top in ("python", "csrc", "benchmarks", "tests"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_in_prose_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = {path for match in (*SOURCE.findall(text), *PLACE.findall(text)) for path in expanded(match)}
    assert [path for path in sorted(named) if not exists(path, page)] == []


def test_a_path_that_is_not_there_is_found() -> None:
    assert SOURCE.findall("`features/base.py`, `cpu/a_{b,c}.cpp`") == ["features/base.py", "cpu/a_{b,c}.cpp"]
    assert not exists("features/base.py", PAGES[0])
    assert exists("maps/base.py", PAGES[0])


def messages() -> str:
    """Every text in the sources of the package, with the parts of an f-string that are fixed."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "python").rglob("*.py"))
    nodes = (node for tree in trees for node in ast.walk(tree))
    return "\n".join(node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))


def test_messages_on_the_page_of_troubles_are_those_of_the_sources() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    heads = [line for line, below in itertools.pairwise(page.splitlines()) if below.startswith(": ")]
    texts = [text for line in heads if line.startswith("`") for text in re.findall(r"`([^`]+)`", line)]
    quoted = [part.strip(" ,") for text in texts for part in text.split("…")]
    known = messages() + (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert len(quoted) > 20
    assert [text for text in quoted if text not in known] == []
