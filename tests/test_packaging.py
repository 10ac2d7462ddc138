"""The installed package: version, extras, licence, type stubs."""

from __future__ import annotations

import ast
import importlib.metadata
import re
from pathlib import Path
from types import ModuleType

import krrdistill
import krrdistill.apps.info

DISTRIBUTION = importlib.metadata.distribution("krrdistill")
PACKAGE = Path(krrdistill.__file__).parent
DISTRIBUTION_OF = {"yaml": "pyyaml", "sklearn": "scikit-learn", "PIL": "pillow"}  # where they differ
# For work on this project, for one build, or for a cluster that has the engine.
TOOL_EXTRAS = {"all", "test", "lint", "bench", "cuda13", "dask", "ray"}


def requirements(extra: str) -> set[str]:
    """Names of the distributions (or ``krrdistill[a,b]``) that an extra asks for."""
    pattern = re.compile(rf"""([A-Za-z0-9._-]+(?:\[[a-z0-9,]+\])?).*;.*\bextra == ['"]{extra}['"]""")
    return {match[1].lower() for line in DISTRIBUTION.requires or () if (match := pattern.match(line))}


def test_the_version_has_one_source() -> None:
    version = DISTRIBUTION.version
    assert krrdistill.__version__ == version
    assert re.fullmatch(r"\d+\.\d+\.\d+([a-z.]+\d+)?", version)
    quoted = [
        path.name for path in PACKAGE.rglob("*.py") if re.search(rf"['\"]{re.escape(version)}['\"]", path.read_text())
    ]
    assert quoted == ["_version.py"]


def test_info_knows_every_extra_and_what_it_brings() -> None:
    provided = set(DISTRIBUTION.metadata.get_all("Provides-Extra") or ())
    assert provided >= TOOL_EXTRAS
    assert set(krrdistill.apps.info.EXTRAS) == provided - TOOL_EXTRAS
    for extra, modules in krrdistill.apps.info.EXTRAS.items():
        assert {DISTRIBUTION_OF.get(module, module) for module in modules} == requirements(extra), extra


def test_all_is_the_sum_of_the_extras() -> None:
    assert requirements("all") == {f"krrdistill[{','.join(krrdistill.apps.info.EXTRAS)}]"}


def test_messages_name_extras_that_exist() -> None:
    provided = set(DISTRIBUTION.metadata.get_all("Provides-Extra") or ())
    named = {
        extra
        for path in PACKAGE.rglob("*.py")
        for extras in re.findall(r"krrdistill\[([a-z0-9,]+)\]", path.read_text())
        for extra in extras.split(",")
    }
    assert named
    assert named <= provided


def test_licence_and_type_marker_are_installed() -> None:
    files = {str(file) for file in DISTRIBUTION.files or ()}
    assert DISTRIBUTION.metadata["License-Expression"] == "BSD-3-Clause"
    assert any(name.endswith("licenses/LICENSE") for name in files)
    assert (PACKAGE / "py.typed").is_file()
    assert (PACKAGE / "_native.pyi").is_file()


def stub_signatures() -> dict[str, list[str]]:
    """Public names of ``_native.pyi`` with their argument names (for a class those of its constructor)."""
    signatures = {}
    for node in ast.parse((PACKAGE / "_native.pyi").read_text()).body:
        if isinstance(node, ast.ClassDef):
            init = next(item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__")
            signatures[node.name] = [argument.arg for argument in init.args.args]
        elif isinstance(node, ast.FunctionDef):
            signatures[node.name] = [argument.arg for argument in node.args.args]
    return signatures


def compiled_signatures(native: ModuleType) -> dict[str, list[str]]:
    """The same of the compiled module, from the signatures that pybind11 writes into the docstrings."""
    signatures = {}
    for name in dir(native):
        if name.startswith("_"):
            continue
        value = getattr(native, name)
        text = value.__init__.__doc__ if isinstance(value, type) else value.__doc__
        first = next(
            line for line in text.splitlines() if re.match(r"(\d+\. )?\w+\(.*\) -> ", line) and "*args" not in line
        )
        inside = first[first.index("(") + 1 : first.rindex(") ->")]
        while "[" in inside:  # types have commas of their own
            inside = re.sub(r"\[[^\[\]]*\]", "", inside)
        signatures[name] = [part.split(":")[0].strip() for part in inside.split(",") if part.strip()]
    return signatures


def test_stubs_match_the_compiled_module(native_module: ModuleType) -> None:
    assert stub_signatures() == compiled_signatures(native_module)
