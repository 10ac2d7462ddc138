"""The script of docs/reference/file-format.md retrains the same model without krrdistill."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import krrdistill as kd
import tolerances

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "file-format.md"
AFTER = 'meta = json.loads(str(file["meta"]))\n'


def documented_scripts() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_script_is_short_and_uses_numpy_only() -> None:
    script, _ = documented_scripts()
    assert len([line for line in script.splitlines() if line.strip()]) <= 25
    imported = re.findall(r"^(?:import|from) (\w+)", script, re.MULTILINE)
    assert sorted(set(imported)) == ["json", "numpy", "sys"]


def retrained_by_numpy(points: kd.DistilledDataset, raw: Any, folder: Path) -> tuple[Any, Any]:
    """(W, scores of raw samples) as the documented lines compute them where krrdistill cannot be imported."""
    words = [str(folder / name) for name in ("distilled.npz", "raw.npy", "found.npz")]
    points.save(folder / "distilled.npz", embed_map=True)
    np.save(folder / "raw.npy", raw)
    script, structured = documented_scripts()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "krrdistill", None)  # any `import krrdistill` fails
        patch.setattr(sys, "argv", ["script", *words])
        exec(script.replace(AFTER, AFTER + structured), {"__name__": "__main__"})
    with np.load(folder / "found.npz") as found:
        return found["W"], found["scores"]


def test_script_runs_in_a_process_of_its_own(data: kd.Dataset, tmp_path: Path) -> None:
    phi = kd.make_map("FCNN", data, kd.standardize(data), seed=3)
    points = kd.distill(data.x_train, data.y_train, phi, seed=3).distilled
    W, scores = retrained_by_numpy(points, data.x_test, tmp_path)
    program = "import sys; sys.modules['krrdistill'] = None\n" + documented_scripts()[0]
    subprocess.run([sys.executable, "-c", program, "distilled.npz", "raw.npy", "again.npz"], check=True, cwd=tmp_path)
    with np.load(tmp_path / "again.npz") as found:
        tolerances.assert_exact(found["W"], W)
        tolerances.assert_exact(found["scores"], scores)


@pytest.fixture(scope="module")
def data() -> kd.Dataset:
    digits = kd.load_dataset("digits")
    return replace(digits, x_train=digits.x_train[:, 1:], x_test=digits.x_test[:, 1:])  # 56 pixels: no power of two


OPTIONS: dict[str, dict[str, Any]] = {
    "one": {},
    "real": {"points_per_class": 10, "init": "real"},
    "intercept": {"points_per_class": 2, "intercept": True},
    "centred targets": {"points_per_class": 2, "center_targets": True},
    "lambda_s": {"lambda_s": "auto"},
    "float32": {"store": "float32"},
    "float16": {"store": "float16"},
    "uint8": {"store": "uint8", "init": "real", "points_per_class": 2},
}


@pytest.mark.parametrize("kernel", ["identity", "random_fourier", "orthogonal_fourier", "FCNN"])
@pytest.mark.parametrize("name", OPTIONS)
def test_numpy_alone_retrains_and_predicts(data: kd.Dataset, tmp_path: Path, kernel: str, name: str) -> None:
    phi = kd.make_map(kernel, data, kd.standardize(data), seed=3)
    result = kd.distill(data.x_train, data.y_train, phi, seed=3, **OPTIONS[name])
    W, scores = retrained_by_numpy(result.distilled, data.x_test, tmp_path)
    expected, b = result.distilled.fit_weights()  # of rounded inputs: whatever is left of W
    tolerances.assert_promised_model(W, expected)
    own = phi.transform(data.x_test, dtype="float64") @ expected.T + b
    tolerances.assert_promised_model(scores, own)


@pytest.mark.parametrize("kernel", ["identity", "FCNN"])
def test_numpy_alone_whitens(data: kd.Dataset, tmp_path: Path, kernel: str) -> None:
    phi = kd.make_map(kernel, data, kd.zca(data), seed=3)
    result = kd.distill(data.x_train, data.y_train, phi, seed=3)
    W, scores = retrained_by_numpy(result.distilled, data.x_test, tmp_path)
    tolerances.assert_promised_model(W, result.model.W)
    assert np.mean(scores.argmax(axis=1) == result.model.predict(data.x_test)) == 1.0
