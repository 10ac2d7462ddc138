"""
From C++
========

The arithmetic of the package is a C++20 library that needs no Python.
A program finds it with CMake, distils in one call, and writes the same file as Python does.

This page shows such a program, builds it, runs it, and reads its file from Python.
"""

import os
import subprocess
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

import krrdistill as kd

checkout = next(
    folder
    for folder in (Path.cwd(), *Path.cwd().parents)
    if (folder / "examples/embed_cpp").is_dir()
)
example = checkout / "examples/embed_cpp"

# %%
# The program
# -----------
# All of ``examples/embed_cpp/main.cpp``.
# ``images.h`` beside it draws the images, so that the program needs no data.

print((example / "main.cpp").read_text(encoding="utf-8"))

# %%
# How CMake finds the library
# ---------------------------
# All of ``examples/embed_cpp/CMakeLists.txt``:

print((example / "CMakeLists.txt").read_text(encoding="utf-8"))

# %%
# Build and run
# -------------
# The library has to be installed first, which takes a minute or two.
# ``make embed`` does it in the folder ``build`` of a checkout.
# Of a library that was installed elsewhere the environment variable ``CMAKE_PREFIX_PATH`` says where.
# :doc:`/guide/embedding` has the commands, and what they need.
#
# Where CMake finds no library or no compiler, the page says so and goes on.


def run(*command):
    """Runs a command: (whether it succeeded, what it printed)."""
    try:
        done = subprocess.run(
            [*map(str, command)], capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        return False, str(error)
    return done.returncode == 0, done.stdout + done.stderr


distilled = None
with tempfile.TemporaryDirectory() as folder:
    build, path = Path(folder), Path(folder) / "distilled.npz"
    prefix = checkout / "build/embed/static/prefix"
    found, printed = run(
        "cmake", "-S", example, "-B", build, f"-DCMAKE_PREFIX_PATH={prefix}"
    )
    if not found:
        print("The program was not built:\n" + printed[-1500:])
    else:
        built, printed = run("cmake", "--build", build)
        assert built, printed
        succeeded, printed = run(build / "embed_cpp", path)
        print(printed.replace(str(build) + os.sep, ""))
        assert succeeded, printed
        distilled = kd.DistilledDataset.load(path)

# %%
# The file in Python
# ------------------
# The program has checked that its points train to its model, and would have failed otherwise.
# Python reads the file and trains on the points again.
# The picture has the first point of each class.

if distilled is not None:
    print(distilled)
    print("the model that the points train to:", distilled.fit().shape)
    figure, axes = plt.subplots(
        1,
        10,
        figsize=(9, 1.2),
        layout="compressed",
        subplot_kw={"xticks": [], "yticks": []},
    )
    for axis, image in zip(axes, distilled.samples, strict=False):
        axis.imshow(image, cmap="gray")
    plt.show()

    assert len(distilled.Y) == 100
