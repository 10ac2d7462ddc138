"""The installed package (version, extras, licence, type stubs), and what makes a release of it."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import krrdistill
import krrdistill.apps.info

DISTRIBUTION = importlib.metadata.distribution("krrdistill")
PACKAGE = Path(krrdistill.__file__).parent
ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
DISTRIBUTION_OF = {"yaml": "pyyaml", "sklearn": "scikit-learn", "PIL": "pillow"}  # where they differ
# For work on this project, for one build, or for an engine or tracker that is there.
TOOL_EXTRAS = {"all", "test", "lint", "bench", "docs", "cuda13", "dask", "ray", "tensorboard", "mlflow"}


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


# The sdist


def tracked_files() -> list[str]:
    """The repository's files; the test is skipped outside of a clone."""
    found = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if found.returncode != 0:
        pytest.skip("not a clone of the repository")
    return [name for name in found.stdout.splitlines() if (ROOT / name).is_file()]


def test_sdist_after_builds_and_tests_holds_the_tracked_files_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scikit_build = pytest.importorskip("scikit_build_core.build")
    tracked, clone = tracked_files(), tmp_path / "clone"
    left_behind = (
        ".venv/lib/module.py", "build/dev/module.o", "dist/old.whl", "runs/demo/report.json", "wheelhouse/old.whl",
        ".mypy_cache/a.json", ".ruff_cache/a", ".hypothesis/a", ".pytest_cache/a", "tests/__pycache__/a.pyc",
        "tests/.pytest_cache/a", "benchmarks/.benchmarks/a", "python/krrdistill/_native.so",
        "csrc/compile_commands.json",
    )  # fmt: skip
    for name in (*tracked, *left_behind):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        if name in left_behind:
            (clone / name).write_text("left behind", encoding="utf-8")
        else:
            shutil.copy(ROOT / name, clone / name)
    monkeypatch.chdir(clone)
    archive = tmp_path / scikit_build.build_sdist(str(tmp_path))
    with tarfile.open(archive) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert names - {"PKG-INFO"} == set(tracked)
    assert archive.stat().st_size < 3e6


# Workflows and templates


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.name)
def test_files_of_github_are_yaml(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)


def jobs(workflow: str) -> dict[str, dict[str, Any]]:
    """The jobs of a workflow."""
    found: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / ".github" / "workflows" / workflow).read_text())["jobs"]
    return found


def needed(workflow: str, job: str) -> set[str]:
    """The jobs that ``job`` waits for, by way of others too."""
    direct = jobs(workflow)[job].get("needs", [])
    direct = [direct] if isinstance(direct, str) else direct
    return {*direct, *(name for each in direct for name in needed(workflow, each))}


def test_publishing_waits_for_every_job_that_uploads_a_distribution() -> None:
    uploads = {
        name
        for name, job in jobs("wheels.yml").items()
        for step in job["steps"]
        if "upload-artifact" in step.get("uses", "") and step["with"]["name"].startswith("dist-")
    }
    assert uploads == {"sdist", "pure", "wheels"}
    assert needed("wheels.yml", "publish") == {*uploads, "try-pure"}
    writers = {name for name, job in jobs("wheels.yml").items() if "id-token" in job.get("permissions", {})}
    assert writers == {"publish"}


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_name_files_that_exist(workflow: Path) -> None:
    text = workflow.read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w./])(?:tests|tools)/\w+\.py|\.ci/run\b", text))
    targets = set(re.findall(r"\bmake ([a-z][\w-]*)", text))
    assert named | targets
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert [name for name in sorted(targets) if f"\n{name}:" not in makefile] == []


def test_wheels_are_built_for_the_pythons_of_the_classifiers() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.findall(r'"cp3(\d+)-\*"', text) == re.findall(r"Programming Language :: Python :: 3\.(\d+)", text)


def test_free_threaded_wheels_are_off_while_the_module_needs_the_gil() -> None:
    declared = any("mod_gil_not_used" in path.read_text() for path in (ROOT / "csrc" / "bindings").glob("*.cpp"))
    skipped = 'skip = ["cp314t-*"]' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert declared != skipped


# The prose of a release


def test_readme_links_work_on_pypi() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not link.startswith(("https://", "#"))] == []
    place = r"^\[([^\]]+)\]: https://github\.com/krrdistill/krrdistill/(?:blob|raw)/main/(\S+)$"
    places = dict(re.findall(place, text, re.MULTILINE))
    assert {"docs/quickstart.md", "CHANGELOG.md"} <= set(places.values())
    assert [path for path in places.values() if not (ROOT / path).exists()] == []
    used = {label for label in places if f"[{label}]" in text.replace(f"[{label}]:", "")}
    assert used == set(places)


def test_citation_names_the_software_and_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["authors"] == [{"name": "krrdistill developers"}]
    assert citation["license"] == DISTRIBUTION.metadata["License-Expression"]
    (paper,) = citation["references"]
    assert [author["family-names"] for author in paper["authors"]] == ["Chen", "Huang", "Weng"]
    assert paper["title"] == "Provable and Efficient Dataset Distillation for Kernel Ridge Regression"


# Cutting a release


def tool(name: str) -> ModuleType:
    """A script of tools/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The three files that a release changes, of version 0.1.0."""
    (tmp_path / "python" / "krrdistill").mkdir(parents=True)
    (tmp_path / "python" / "krrdistill" / "_version.py").write_text('"""One."""\n\n__version__ = "0.1.0"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\n### Added\n- λ.\n", encoding="utf-8")
    (tmp_path / "CITATION.cff").write_text("type: software\nlicense: BSD-3-Clause\n", encoding="utf-8")
    return tmp_path


def test_release_sets_the_version_and_dates_the_changelog(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = tool("release")
    module.main(["0.2.0"], root=checkout)
    assert "git tag -a v0.2.0" in capsys.readouterr().out
    version = checkout / "python" / "krrdistill" / "_version.py"
    assert version.read_text() == '"""One."""\n\n__version__ = "0.2.0"\n'
    log = (checkout / "CHANGELOG.md").read_text(encoding="utf-8")
    heading = r"# Changelog\n\n## Unreleased\n\n## 0\.2\.0 - \d{4}-\d\d-\d\d\n\n### Added\n- λ\.\n"
    assert re.fullmatch(heading, log)
    (date,) = re.findall(r"## 0\.2\.0 - (\S+)", log)
    cited = yaml.safe_load((checkout / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited == {"type": "software", "version": "0.2.0", "date-released": date, "license": "BSD-3-Clause"}
    module.main(["--check", "v0.2.0"], root=checkout)


def test_a_second_release_leaves_one_version_in_the_citation(checkout: Path) -> None:
    module = tool("release")
    module.release(checkout, "0.1.0", "2026-01-02")
    log = (checkout / "CHANGELOG.md").read_text(encoding="utf-8")
    more = log.replace(module.UNRELEASED, f"{module.UNRELEASED}- b\n")
    (checkout / "CHANGELOG.md").write_text(more, encoding="utf-8")
    module.release(checkout, "0.2.0", "2026-02-03")
    dated = 'type: software\nversion: 0.2.0\ndate-released: "2026-02-03"\nlicense: BSD-3-Clause\n'
    assert (checkout / "CITATION.cff").read_text(encoding="utf-8") == dated


def test_the_first_release_may_keep_the_version_that_is_there(checkout: Path) -> None:
    tool("release").release(checkout, "0.1.0", "2026-01-02")
    assert "## 0.1.0 - 2026-01-02\n" in (checkout / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("version", "log", "said"),
    [
        ("0.0.9", None, "older than 0.1.0"),
        ("1.0", None, "three numbers"),
        ("0.2.0", "## Unreleased\n- a\n\n## 0.2.0 - 2026-01-02\n- b\n", "0.2.0 is in CHANGELOG.md already"),
        ("0.2.0", "## Unreleased\n\n## 0.1.0 - 2026-01-02\n- b\n", "says nothing under '## Unreleased'"),
        ("0.2.0", "## 0.1.0 - 2026-01-02\n- b\n", "no heading '## Unreleased'"),
    ],
)
def test_release_refuses_and_changes_nothing(
    checkout: Path, capsys: pytest.CaptureFixture[str], version: str, log: str | None, said: str
) -> None:
    if log is not None:
        (checkout / "CHANGELOG.md").write_text(log, encoding="utf-8")
    before = {path: path.read_bytes() for path in checkout.rglob("*.*") if path.is_file()}
    with pytest.raises(SystemExit, match="2"):
        tool("release").main([version], root=checkout)
    assert said in capsys.readouterr().err
    assert {path: path.read_bytes() for path in checkout.rglob("*.*") if path.is_file()} == before


@pytest.mark.parametrize(("tag", "said"), [("v0.3.0", "is not v0.1.0"), ("v0.1.0", "no heading '## 0.1.0 - ")])
def test_a_tag_that_is_not_the_released_version_is_refused(checkout: Path, tag: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        tool("release").check_tag(checkout, tag)


def test_a_tag_that_the_citation_does_not_have_is_refused(checkout: Path) -> None:
    module = tool("release")
    module.release(checkout, "0.2.0", "2026-01-02")
    (checkout / "CITATION.cff").write_text("type: software\nversion: 0.1.0\n", encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape("CITATION.cff has no line 'version: 0.2.0'")):
        module.check_tag(checkout, "v0.2.0")


def test_release_finds_its_places_in_this_repository(tmp_path: Path) -> None:
    for name in ("CHANGELOG.md", "CITATION.cff", "python/krrdistill/_version.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    tool("release").release(tmp_path, "1000.0.0", "2026-01-02")
    tool("release").check_tag(tmp_path, "v1000.0.0")


def test_nothing_asks_for_a_version_that_the_next_release_is_not() -> None:
    places = [ROOT / "examples" / "embed_cpp" / "CMakeLists.txt", *(ROOT / "docs").rglob("*.md")]
    asked = re.compile(r"find_package\(krrdistill [\d.]+|krrdistill ?[=~]= ?\d")
    assert [path.name for path in places if asked.search(path.read_text(encoding="utf-8"))] == []


def test_page_of_wheels_is_written_from_the_wheels_that_were_measured(tmp_path: Path) -> None:
    module, page = tool("build_wheels"), ROOT / "docs" / "guide" / "releasing.md"
    results = json.loads((ROOT / "benchmarks" / "results" / "wheels.json").read_text(encoding="utf-8"))
    again = Path(shutil.copy(page, tmp_path))
    module.write_page(results, again)
    assert again.read_text(encoding="utf-8") == page.read_text(encoding="utf-8")
    assert results["sdist_bytes"] < 3e6
    assert all(row["prediction_agreement"] == 1.0 and "manylinux" in row["file"] for row in results["wheels"])


def test_what_tries_a_wheel_passes_here_and_refuses_another_backend(native_module: ModuleType) -> None:
    assert native_module is not None
    tool("check_wheel").main("native")
    with pytest.raises(SystemExit, match="backend native in place of array"):
        tool("check_wheel").main("array")


# The walk-throughs of CONTRIBUTING.md


def contributing_blocks(language: str) -> list[str]:
    """The blocks of code of CONTRIBUTING.md in a language."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


# Without the finders of an editable install, which know where krrdistill is.
RUN_COPY = """
import sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
sys.meta_path[:] = [BuiltinImporter, FrozenImporter, PathFinder]
sys.path.insert(0, sys.argv.pop(1))
from krrdistill.apps.cli import main
sys.exit(main())
"""


def test_the_walk_through_of_a_map_ends_on_the_command_line(tmp_path: Path) -> None:
    module, entry, _ = contributing_blocks("python")
    (session,) = contributing_blocks("console")
    shutil.copytree(PACKAGE, tmp_path / "krrdistill")  # with what Python compiled, which fits files of the same time
    file = re.match(r"# python/(krrdistill/maps/\w+\.py)\n", module)
    assert file is not None
    (tmp_path / file[1]).write_text(module, encoding="utf-8")
    options = (tmp_path / "krrdistill" / "options.py").read_text(encoding="utf-8")
    changed, count = re.subn(r"(?s)^(MAPS = \{\n.*?)^\}", rf"\1{entry}}}", options, count=1, flags=re.MULTILINE)
    assert count == 1
    (tmp_path / "krrdistill" / "options.py").write_text(changed, encoding="utf-8")
    for line in session.splitlines():
        command = [sys.executable, "-c", RUN_COPY, str(tmp_path), *line.split()[1:]]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert "is within the tolerance" in done.stdout


def test_the_walk_through_of_a_backend_is_exact(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(contributing_blocks("python")[2], names)
    assert names["result"].model is not None
    assert "prediction_agreement=1.0" in capsys.readouterr().out
