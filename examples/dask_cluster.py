"""A cluster of Dask sums the statistics; what is distilled from them is what one machine would have made.

    pip install "krrdistill[cli,dask]"
    python examples/dask_cluster.py

In place of the ``LocalCluster``, ``Client(ADDRESS)`` takes a real one; ``da.from_zarr`` or ``dask.dataframe`` reads
data that no machine could hold.
"""

from __future__ import annotations

import dask.array as da
from distributed import Client, LocalCluster

import krrdistill as kd
from krrdistill.interop.dask import correct_counts, statistics


def main() -> None:
    """Sums on two processes, chooses lambda there, distils here, and compares."""
    digits = kd.load_dataset("digits")
    phi = kd.make_map("FCNN", digits, kd.standardize(digits))
    X = da.from_array(digits.x_train, chunks=(300, -1, -1))
    y = da.from_array(digits.y_train, chunks=300)
    split = {"holdout": 0.2, "seed": 0}  # the same rows in both passes

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as workers, Client(workers):
        sums = statistics(X, y, phi, classes=10, precision="float64", **split)
        counts = correct_counts(kd.ridge_path(sums), sums, X, y, **split)
    model = kd.fit_model(sums, validation=counts)
    points = kd.distill_model(model, points_per_class=1)
    print(f"{sums.n} of {len(X)} samples in {X.numblocks[0]} chunks, lambda {model.lambda_:.3g}")
    print(f"held-out accuracy {model.val_accuracy:.4f}, test accuracy {model.score(digits.x_test, digits.y_test):.4f}")

    here = kd.RidgeStatistics(phi, classes=10, precision="float64")
    held_out = here.update_batches([(digits.x_train, digits.y_train)], **split)
    assert model.lambda_ == kd.fit_model(here, validation=held_out).lambda_
    certificate = points.verify(model, test=(digits.x_test, digits.y_test))
    word = "exact" if certificate.prediction_agreement == 1.0 else "not exact"
    print(f"{len(points.X)} points, {word}: weight error {certificate.weight_relative_error:.1e}")


if __name__ == "__main__":
    main()
