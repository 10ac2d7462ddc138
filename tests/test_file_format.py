"""The script of docs/file-format.md retrains the same model in a process that cannot import krrdistill."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import krrdistill as kd

PAGE = Path(__file__).parent.parent / "docs" / "file-format.md"


def documented_script() -> str:
    match = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert match is not None
    return match.group(1)


def test_script_is_short_and_uses_numpy_only() -> None:
    lines = [line for line in documented_script().splitlines() if line.strip()]
    assert len(lines) <= 36
    imported = re.findall(r"^(?:import|from) (\w+)", documented_script(), re.MULTILINE)
    assert sorted(set(imported)) == ["json", "numpy", "sys"]


@pytest.mark.parametrize("kernel", ["identity", "random_fourier", "orthogonal_fourier", "FCNN"])
@pytest.mark.parametrize(
    "points",
    [{"points_per_class": 1}, {"points_per_class": 10, "init": "real"}, {"points_per_class": 2, "intercept": True}],
)
@pytest.mark.parametrize(
    ("lambda_s", "store"), [(0.0, "float64"), ("auto", "float64"), (0.0, "float16"), (0.0, "uint8")]
)
def test_numpy_alone_retrains(
    tmp_path: Path, kernel: str, points: dict[str, object], lambda_s: float | str, store: str
) -> None:
    data = kd.load_dataset("digits")
    data = replace(data, x_train=data.x_train[:, 1:], x_test=data.x_test[:, 1:])  # 56 pixels: no power of two
    scaling = kd.standardize(data)
    phi = kd.make_map(kernel, data, scaling, seed=3)
    result = kd.distill(
        data.x_train, data.y_train, phi, preprocessing=scaling, seed=3, lambda_s=lambda_s, store=store, **points
    )
    result.distilled.save(tmp_path / "distilled.npz")
    # A blocked name in sys.modules makes any `import krrdistill` fail.
    program = "import sys; sys.modules['krrdistill'] = None; sys.argv = ['-', *sys.argv[1:]]\n" + documented_script()
    command = [sys.executable, "-c", program, str(tmp_path / "distilled.npz"), str(tmp_path / "W.npy")]
    subprocess.run(command, check=True, cwd=tmp_path)
    W_S = np.load(tmp_path / "W.npy")
    expected = result.original.W if store == "float64" else result.distilled.fit()  # compact: whatever is left of W
    assert np.linalg.norm(W_S - expected) < 1e-6 * np.linalg.norm(expected)
