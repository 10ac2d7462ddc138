"""What may know what: includes of the C++ sources, what an import loads, and the public names.

Which module may import which is a contract in pyproject.toml, checked by ``make lint``.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import krrdistill as kd
from conftest import framework

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(path for path in (ROOT / "csrc").rglob("*") if path.suffix in {".h", ".hpp", ".cpp", ".cu", ".cuh"})
PACKAGE = Path(kd.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
IMPORTABLE = [path for path in MODULES if "cli" not in path.relative_to(PACKAGE).parts]  # that has its own tests

PYTHON_HEADER = re.compile(r"Python\.h|pybind11/|nanobind/|numpy/|bindings/")
OWN_HEADER = re.compile(r"bindings/|cuda/(operations|dense)\.h$")  # each is itself looked at
CUDA_HEADER = re.compile(r"cuda|cublas|cusolver|cusparse|curand|nvrtc|nvtx|thrust/|cub/")
CORE_DEPENDENCIES = {"numpy", "scipy", "threadpoolctl", "array_api_compat", "lazy_loader"}
OPTIONAL = {
    "torch",
    "cupy",
    "jax",
    "numba",
    "opendp",
    "matplotlib",
    "pandas",
    "PIL",
    "jinja2",
    "markupsafe",
    "typer",
    "rich",
    "yaml",
    "sklearn",
    "pooch",
    "narwhals",
    "pyarrow",
    "datasets",
    "dask",
    "distributed",
    "ray",
    "mlflow",
    "tensorboardX",
}

pytestmark = pytest.mark.skipif(not SOURCES, reason="the C++ sources are not beside the tests")


def includes(path: Path) -> list[str]:
    return re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', path.read_text(), flags=re.MULTILINE)


def test_the_scan_sees_the_sources() -> None:
    assert len(SOURCES) >= 20
    assert any(PYTHON_HEADER.search(name) for path in SOURCES for name in includes(path))
    assert all(includes(path) for path in SOURCES if path.suffix in {".cpp", ".cu"})


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_includes_stay_in_their_folder(path: Path) -> None:
    folder = path.relative_to(ROOT / "csrc").parts[0]
    for name in includes(path):
        assert folder == "bindings" or not PYTHON_HEADER.search(name), f"{name} belongs to csrc/bindings"
        allowed = folder == "cuda" or OWN_HEADER.match(name) or not CUDA_HEADER.search(name)
        assert allowed, f"{name} belongs to csrc/cuda"
    if folder == "include":
        assert all("cpu/" not in name and "common/" not in name for name in includes(path)), "a public header is closed"


def test_no_flag_gives_up_ieee_arithmetic() -> None:
    files = [ROOT / "CMakeLists.txt", *(ROOT / "cmake").glob("*.cmake"), ROOT / "pyproject.toml"]
    assert len(files) >= 3
    for path in files:
        text = re.sub(r"#.*", "", path.read_text())
        for flag in ("-ffast-math", "-Ofast", "-funsafe-math-optimizations", "-march=native"):
            assert flag not in text, f"{path.name}: {flag}"


def imported_packages(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield str(node.module).split(".")[0]


def test_the_package_imports_declared_dependencies_only() -> None:
    known = {*sys.stdlib_module_names, *CORE_DEPENDENCIES, *OPTIONAL, "krrdistill"}
    assert len(MODULES) > 50
    for path in MODULES:
        assert set(imported_packages(path)) <= known, path.relative_to(PACKAGE)


_STATISTICS = """
import krrdistill as kd
s = kd.RidgeStatistics(kd.FCNN(3), 2, backend={0!r}).update([[1.0, 2, 3], [4, 5, 7]], [0, 1])
kd.fit_features(kd.FCNN(3).transform([[1.0, 2, 3]], backend={0!r}), [[1.0]])
kd.ridge_path(s); kd.DistillOptions; kd.distill; kd.DistilledDataset; kd.run_distillation; kd.run_kip
"""
USES = {
    "import": "import krrdistill",
    "array": _STATISTICS.format("array"),
    "native": _STATISTICS.format("native"),
}


@pytest.mark.parametrize("use", USES)
def test_the_package_loads_no_framework(use: str, request: pytest.FixtureRequest) -> None:
    if use == "native":
        request.getfixturevalue("native_module")
    code = f"{USES[use]}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert "krrdistill" in loaded
    assert not loaded & OPTIONAL


def test_importing_the_package_is_cheap() -> None:
    code = "import krrdistill, sys; print([name for name in sys.modules if name.partition('.')[0] == 'krrdistill'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ast.literal_eval(done.stdout) == ["krrdistill._version", "krrdistill"]


@pytest.mark.parametrize("name", kd.__all__)
def test_public_names_resolve_and_are_documented(name: str) -> None:
    value = getattr(kd, name)
    assert name in dir(kd)
    if name == "__version__":
        assert re.fullmatch(r"\d+\.\d+\.\d+.*", value)
        return
    assert value.__doc__
    assert value.__doc__.strip()
    assert not value.__doc__.startswith(f"{name}("), "the docstring is the one that dataclass writes"
    assert value.__name__ == name
    for member, attribute in vars(value).items() if isinstance(value, type) else ():
        if callable(attribute) and not member.startswith("_"):
            assert attribute.__doc__, f"{name}.{member} has no docstring"


def test_public_names_are_sorted_and_complete() -> None:
    assert kd.__all__ == sorted(set(kd.__all__))
    assert {"DistillOptions", "RidgeStatistics", "__version__", "distill"} <= set(kd.__all__)
    with pytest.raises(AttributeError, match="krrdistill attribute distil"):
        _ = kd.distil  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", kd.__all__)
def test_no_submodule_takes_the_place_of_a_public_name(name: str) -> None:
    """``import krrdistill.distill`` would replace the function krrdistill.distill by a module."""
    assert importlib.util.find_spec(f"krrdistill.{name}") is None


@pytest.mark.parametrize("path", IMPORTABLE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_export_what_they_say(path: Path, request: pytest.FixtureRequest) -> None:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    dotted = ".".join(("krrdistill", *(part for part in parts if part != "__init__")))
    if parts[-1] in ("native", "numba"):
        request.getfixturevalue(f"{parts[-1]}_module")
    if parts[0] == "interop" and parts[1] in ("torch", "torch_distributed", "dask", "ray"):
        framework(parts[1].partition("_")[0])
    if "report" in parts:
        pytest.importorskip("matplotlib", reason="the cli extra is not installed")
    module = importlib.import_module(dotted)
    assert module.__doc__
    for name in getattr(module, "__all__", ()):
        assert hasattr(module, name), f"{dotted}.__all__ names {name}, which is not there"
