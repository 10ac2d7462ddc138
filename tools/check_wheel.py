"""Tries an installed krrdistill with nothing but its dependencies: python tools/check_wheel.py native|array.

Distils made-up data and reads the files back, on the backend that is taken without a name: it must be the one expected.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

import krrdistill as kd


def main(expected: str) -> None:
    """Raises SystemExit unless the installed package distils on the backend ``expected``, exactly."""
    found = kd.get_backend().name
    if found != expected:
        raise SystemExit(f"check_wheel: backend {found} in place of {expected}: {kd.backend_status()[expected]}")
    rng = np.random.default_rng(0)
    y = np.arange(600) % 3
    X = rng.normal(size=(600, 20)) + rng.normal(size=(3, 20))[y]
    for phi in (kd.Identity(20), kd.RandomFourier(20, sigma2=20.0), kd.FCNN(20)):
        result = kd.distill(X, y, phi, points_per_class=1, precision="float64")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "distilled.npz"
            result.distilled.save(path)
            certificate = kd.DistilledDataset.load(path).verify(result.model, test=(X, y))
        print(f"{phi.kernel} on {found}: {certificate}")
        if certificate.prediction_agreement != 1.0 or not certificate.weight_relative_error <= 1e-9:
            raise SystemExit(f"check_wheel: {phi.kernel} is not exact")


if __name__ == "__main__":
    main(*sys.argv[1:])
