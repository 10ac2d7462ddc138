"""What the prose says of the repository: every path that it names exists; and the site: nothing is left out of it."""

from __future__ import annotations

import ast
import fnmatch
import importlib
import itertools
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import krrdistill as kd

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *(ROOT / folder / "README.md" for folder in ("csrc", "benchmarks", "benchmarks/gpu")),
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


def complete_examples() -> list[Any]:
    """Blocks of Python in the prose that import the package and load data of their own."""
    found = []
    for page in PAGES:
        for block in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            if re.search(r"^(?:import|from) krrdistill", block, re.MULTILINE) and re.search(r"load_d(?:ata|i)", block):
                found.append(pytest.param(block, id=f"{page.relative_to(ROOT)}-{len(found)}"))
    return found


@pytest.mark.filterwarnings("ignore::krrdistill.ResultWarning")  # few samples
@pytest.mark.parametrize("block", complete_examples())
def test_complete_examples_of_the_prose_run(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "example", "exec"), {"numpy": np})


DOCS = ROOT / "docs"
TOCTREE = re.compile(r"^```\{toctree\}\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture
def extension(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports one of docs/_ext, or what it needs."""
    pytest.importorskip("sphinx")
    pytest.importorskip("typer")
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    return importlib.import_module


def entries(page: Path) -> list[str]:
    """What the toctrees of a page name, as patterns of paths in docs/."""
    found = "\n".join(TOCTREE.findall(page.read_text(encoding="utf-8"))).splitlines()
    folder = page.parent.relative_to(DOCS)
    return [f"{(folder / line).as_posix()}.md" for line in found if line and not line.startswith(":")]


def test_every_page_is_in_the_contents_of_the_site() -> None:
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    reached, new = set(), {"index.md"}
    while new:
        reached |= new
        named = [pattern for page in new for pattern in entries(DOCS / page)]
        new = {page for pattern in named for page in fnmatch.filter(pages, pattern)} - reached
    assert sorted(pages - reached) == []


def test_every_public_name_is_in_the_api_reference() -> None:
    listed = re.findall(r"^   ([A-Za-z_]+)$", (DOCS / "reference" / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(set(listed)) == len(listed)
    assert sorted(set(kd.__all__) - {"__version__"} - set(listed)) == []


def test_every_option_is_in_the_reference_of_its_command(extension: Callable[[str], Any]) -> None:
    typer = pytest.importorskip("typer")
    group = typer.main.get_command(extension("krrdistill.apps.cli.app").app)
    listed = {command["name"]: command for command in extension("templates").commands()}
    assert listed.keys() == group.commands.keys()
    for name, command in group.commands.items():
        given = {option["flags"].split()[0] for options in listed[name]["panels"].values() for option in options}
        assert given == {param.opts[0] for param in command.params if param.param_type_name == "option"}


def test_reference_of_configuration_files_has_every_command_that_takes_one(extension: Callable[[str], Any]) -> None:
    templates = extension("templates")
    flags = {each["name"]: [option["flags"] for option in itertools.chain(*each["panels"].values())]
             for each in templates.commands()}  # fmt: skip
    assert {name for name, given in flags.items() if "--config" in given} == templates.CONFIGURED.keys()


def test_page_that_loads_from_elsewhere_is_found_and_links_are_not(
    extension: Callable[[str], Any], tmp_path: Path
) -> None:
    page, sheet = tmp_path / "page.html", tmp_path / "sheet.css"
    page.write_text(
        '<link rel="canonical" href="https://site.org/"><link rel="stylesheet" href="https://fonts.org/f.css">'
        '<script src="//cdn.org/x.js"></script><img src="near.png"><a href="https://site.org">there</a>',
        encoding="utf-8",
    )
    sheet.write_text("@import 'https://fonts.org/g.css'; p { background: url(near.png) }", encoding="utf-8")
    found = list(extension("self_contained").loaded_from_elsewhere(tmp_path))
    expected = [(page, "https://fonts.org/f.css"), (page, "//cdn.org/x.js"), (sheet, "https://fonts.org/g.css")]
    assert found == expected
