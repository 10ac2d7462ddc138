"""
From C++
========

The arithmetic of the package is a C++20 library that needs no Python.
A program finds it with CMake and calls the same steps: sums over the data, the ridge solution, the points.

This page shows such a program, builds it and runs it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

checkout = next(folder for folder in (Path.cwd(), *Path.cwd().parents) if (folder / "examples/embed_cpp").is_dir())
example = checkout / "examples/embed_cpp"

# %%
# The program
# -----------
# All of ``examples/embed_cpp/main.cpp``:

print((example / "main.cpp").read_text(encoding="utf-8"))

# %%
# How CMake finds the library
# ---------------------------
# All of ``examples/embed_cpp/CMakeLists.txt``:

print((example / "CMakeLists.txt").read_text(encoding="utf-8"))

# %%
# Build and run
# -------------
# First the library is configured, built and installed, then the program is built against what was installed.
# This takes CMake 3.25, a C++20 compiler, and a BLAS with LAPACK (``apt-get install libopenblas-dev``).
# Where one of them is missing, the page says which and stops here.

environment = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}


def run(*command):
    """Runs a command; what it prints, or an error with the end of it."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        raise RuntimeError((done.stdout + done.stderr)[-2000:])
    return done.stdout


def missing():
    """What the library needs and this machine does not have, None where nothing is missing."""
    if shutil.which("cmake", path=environment["PATH"]) is None:
        return "CMake"
    try:
        run("cmake", "-S", checkout, "-B", build / "library", f"-DCMAKE_INSTALL_PREFIX={build / 'prefix'}")
    except RuntimeError as error:
        return f"something that CMake asks for: {error}"
    return None


printed = None
with tempfile.TemporaryDirectory() as folder:
    build = Path(folder)
    lacking = missing()
    if lacking is None:
        run("cmake", "--build", build / "library", "--parallel", os.cpu_count() or 1)
        run("cmake", "--install", build / "library")
        run("cmake", "-S", example, "-B", build / "example", f"-DCMAKE_PREFIX_PATH={build / 'prefix'}")
        run("cmake", "--build", build / "example")
        printed = run(build / "example/embed_cpp")
        print(printed)
    else:
        print("The program was not built. This machine lacks", lacking)

# %%
# The program itself checks that the points train to the same model, and fails if they do not.
# :doc:`/guide/embedding` says what a caller has to know: matrix layout, workspaces, threads, errors.

assert lacking is not None or printed
