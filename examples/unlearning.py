"""Exact unlearning: a thousand samples are taken away, and the model is as if they had never been there.

Statistics subtract. With sums in float64 the rest is that of a new training without the samples, up to rounding, and so
are the model, the points and their certificate. No other sample is needed for it.

    pip install "krrdistill[cli]"
    python examples/unlearning.py --dataset cifar100 --kernel FCNN
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import krrdistill as kd


def main() -> None:
    """Trains, takes away, and trains anew without."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--kernel", default="identity")
    parser.add_argument("--remove", type=int, default=1000)
    options = parser.parse_args()
    data = kd.load_dataset(options.dataset)
    phi = kd.make_map(options.kernel, data, kd.standardize(data))
    test = (data.x_test, data.y_test)
    order = np.random.default_rng(0).permutation(len(data.y_train))
    held, gone, kept = np.split(order, [len(order) // 20, len(order) // 20 + min(options.remove, len(order) // 2)])
    validation = (data.x_train[held], data.y_train[held])

    def statistics(rows: np.ndarray) -> kd.RidgeStatistics:
        empty = kd.RidgeStatistics(phi, data.n_classes, precision="float64")
        return empty.update(data.x_train, data.y_train, rows=np.sort(rows))

    everything = statistics(np.concatenate([gone, kept]))
    start = time.perf_counter()
    forgotten = statistics(gone)
    everything -= forgotten
    seconds = time.perf_counter() - start
    model = kd.fit_model(everything, validation=validation)
    points = kd.distill_model(model, points_per_class=1)

    never = kd.fit_model(statistics(kept), validation=validation)
    anew = kd.distill_model(never, points_per_class=1)
    print(f"{len(gone)} of {len(gone) + len(kept)} samples are taken away in {seconds:.3g} s")
    weights = np.linalg.norm(model.W - never.W) / np.linalg.norm(never.W)
    inputs = np.linalg.norm(points.X - anew.X) / np.linalg.norm(anew.X)
    print(
        f"against training without them: model {weights:.1e}, points {inputs:.1e} (relative), lambda {model.lambda_:g}"
    )
    certificate = points.verify(never, test=test)
    print(f"the points retrain to the model that never saw them up to {certificate.weight_relative_error:.1e}, "
          f"test accuracy {certificate.distilled_accuracy:.4f}")  # fmt: skip


if __name__ == "__main__":
    main()
