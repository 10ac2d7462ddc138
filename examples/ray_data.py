"""Workers of Ray stream a data set into statistics; 10 points retrain to the model of all of it.

    pip install "krrdistill[cli,ray]"
    python examples/ray_data.py

Usually ``ray.data.read_parquet`` or ``read_images`` stands in place of ``from_items``, with ``map_batches`` behind it.
"""

from __future__ import annotations

import ray

import krrdistill as kd
from krrdistill.interop.ray import correct_counts, statistics


def main() -> None:
    """Sums on the workers, chooses lambda there, distils here."""
    digits = kd.load_dataset("digits")
    phi = kd.make_map("FCNN", digits, kd.standardize(digits))
    ray.init(num_cpus=2, include_dashboard=False, ignore_reinit_error=True)
    pairs = zip(digits.x_train, digits.y_train, strict=True)
    rows = [{"row": row, "image": image, "digit": digit} for row, (image, digit) in enumerate(pairs)]
    dataset = ray.data.from_items(rows, override_num_blocks=8)

    columns = {"x": "image", "y": "digit", "row": "row"}
    split = {"holdout": 0.2, "seed": 0}  # the same rows in both passes
    sums = statistics(dataset, phi, classes=10, precision="float64", **columns, **split)
    counts = correct_counts(kd.ridge_path(sums), sums, dataset, **columns, **split)
    model = kd.fit_model(sums, validation=counts)
    print(f"{sums.n} of {dataset.count()} samples, lambda {model.lambda_:.3g}, held out {model.val_accuracy:.4f}")

    points = kd.distill_model(model, points_per_class=1)
    certificate = points.verify(model, test=(digits.x_test, digits.y_test))
    word = "exact" if certificate.prediction_agreement == 1.0 else "not exact"
    print(f"{len(points.X)} points, {word}: weight error {certificate.weight_relative_error:.1e}")


if __name__ == "__main__":
    main()
