"""KRRDISTILL_CUDA=AUTO builds nothing, and says why, where something is missing; ON is an error there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = """cmake_minimum_required(VERSION 3.25)
project(probe LANGUAGES NONE)
include({root}/cmake/cuda.cmake)
"""


def configure(folder: Path, mode: str, *definitions: str, after: str = "") -> subprocess.CompletedProcess[str]:
    """cmake/cuda.cmake alone, where neither the toolkit nor NVIDIA's libraries are."""
    cmake = shutil.which("cmake")
    if cmake is None or not shutil.which("make"):
        pytest.skip("needs CMake and make on the PATH")
    (folder / "CMakeLists.txt").write_text(PROJECT.format(root=ROOT) + after)
    environment = {"PATH": os.defpath, "HOME": str(folder)}
    nowhere = [f"-DCMAKE_FIND_ROOT_PATH={folder}", "-DCMAKE_FIND_ROOT_PATH_MODE_INCLUDE=ONLY"]
    nowhere += ["-DCMAKE_FIND_ROOT_PATH_MODE_LIBRARY=ONLY", f"-DKRRDISTILL_CUDA={mode}"]
    command = [cmake, "-S", str(folder), "-B", str(folder / "build"), "-G", "Unix Makefiles", *nowhere, *definitions]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def compiler(folder: Path, release: str) -> str:
    """A compiler that says that it is nvcc of this release."""
    path = folder / "nvcc"
    path.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {release}, V{release}.0'\n")
    path.chmod(0o755)
    return f"-DCMAKE_CUDA_COMPILER={path}"


@pytest.mark.parametrize(
    ("release", "missing"),
    [
        (None, r"nvcc of CUDA 13 or newer (on the PATH or as CUDACXX, found: none)"),
        ("12.4", r"nvcc of CUDA 13 or newer (on the PATH or as CUDACXX, found: release 12.4)"),
        ("13.0", r"needs cublas (pip install nvidia-cublas), cusolver (pip install nvidia-cusolver)"),
    ],
)
@pytest.mark.parametrize("mode", ["AUTO", "ON"])
def test_what_is_missing_is_told_at_configuration(tmp_path: Path, mode: str, release: str | None, missing: str) -> None:
    none = "-DCMAKE_CUDA_COMPILER=NOTFOUND"
    done = configure(tmp_path, mode, none if release is None else compiler(tmp_path, release))
    said = " ".join((done.stdout + done.stderr).split())
    assert missing in said
    assert "pip install nvidia-cusolver" in said
    if mode == "AUTO":
        assert done.returncode == 0
        assert "krrdistill: without the CUDA backend, which needs" in done.stdout
    else:
        assert done.returncode != 0
        assert "KRRDISTILL_CUDA=ON needs" in said


def test_warnings_are_errors_only_where_they_were_asked_to_be(tmp_path: Path) -> None:
    show = 'krrdistill_cuda_flags(flags)\nmessage(STATUS "flags: ${flags}")\n'
    for value, expected in (("OFF", False), ("ON", True)):
        told = configure(tmp_path, "OFF", f"-DKRRDISTILL_WERROR={value}", after=show).stdout
        flags = next(line for line in told.splitlines() if "flags: " in line)
        assert "-std=c++20" in flags
        assert ("Werror" in flags) == expected


def install(folder: Path, **config: str) -> subprocess.CompletedProcess[str]:
    """What pip does for a wheel, with a C++ compiler that does not work."""
    pytest.importorskip("scikit_build_core", reason="builds a wheel with scikit-build-core")
    for name in ("CMakeLists.txt", "LICENSE", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    for name in ("cmake", "python"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    code = "import sys; from scikit_build_core.build import build_wheel as build\n"
    code += "build('dist', dict(pair.split('=', 1) for pair in sys.argv[1:]))"
    environment = {name: value for name, value in os.environ.items() if name != "KRRDISTILL_REQUIRE_NATIVE"}
    environment["CXX"] = shutil.which("false") or "false"
    command = [sys.executable, "-c", code, *(f"{name}={value}" for name, value in config.items())]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("mode", [None, "OFF", "AUTO", "ON"])
def test_a_failed_build_is_pure_python_only_without_cuda(tmp_path: Path, mode: str | None) -> None:
    configure(tmp_path, "OFF")  # skips without CMake
    done = install(tmp_path, **({} if mode is None else {"cmake.define.KRRDISTILL_CUDA": mode}))
    if mode in (None, "OFF"):
        assert done.returncode == 0, done.stderr
        assert [path.name.partition("-py3-none-any")[1] for path in (tmp_path / "dist").iterdir()] == ["-py3-none-any"]
        assert "WITHOUT its compiled core" in " ".join((done.stdout + done.stderr).split())
    else:
        assert done.returncode != 0
        assert f"KRRDISTILL_CUDA={mode} was asked for and the build failed" in " ".join(done.stderr.split())
        assert not (tmp_path / "dist").exists() or not list((tmp_path / "dist").glob("*.whl"))
