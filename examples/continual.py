"""Class-incremental learning without forgetting: tasks, one after the other, each with classes of its own.

The statistics of a task are added and its samples thrown away. After the last task the model, and the points that
retrain to it, are those of joint training on all tasks, for nothing was lost. Held-out samples of every task, a few
hundred, stay to choose lambda by.

    pip install "krrdistill[cli]"
    python examples/continual.py --dataset cifar100 --kernel FCNN --tasks 10
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import krrdistill as kd


def main() -> None:
    """Learns task after task, and everything at once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--kernel", default="identity")
    parser.add_argument("--tasks", type=int, default=5)
    options = parser.parse_args()
    data = kd.load_dataset(options.dataset)
    phi = kd.make_map(options.kernel, data, kd.standardize(data))
    names = np.array(data.class_names)
    y_train, y_test = names[data.y_train], names[data.y_test]
    tasks = np.array_split(names, min(options.tasks, len(names)))

    total, held = None, []
    for number, classes in enumerate(tasks):
        rows, seen = np.isin(y_train, classes), np.isin(y_test, np.concatenate(tasks[: number + 1]))
        task = kd.RidgeStatistics(phi, classes.tolist(), precision="float64", shard=f"task {number}")
        held.append(task.update_batches([(data.x_train[rows], y_train[rows])], holdout=0.05, seed=number))
        total = task if total is None else total + task  # the new classes come behind the others
        model = kd.fit_model(total, validation=together(held))
        accuracy = model.score(data.x_test[seen], y_test[seen])
        print(f"task {number + 1:2}: {total.k:3} classes, {total.n:6} samples, test accuracy so far {accuracy:.4f}")

    points = kd.distill_model(model, points_per_class=1)
    joint = kd.RidgeStatistics(phi, names.tolist(), precision="float64")
    for number, classes in enumerate(tasks):
        rows = np.isin(y_train, classes)
        joint.update_batches([(data.x_train[rows], y_train[rows])], holdout=0.05, seed=number)
    expected = kd.fit_model(joint, validation=together(held))
    order = [model.classes.names.index(name) for name in names]
    difference = np.linalg.norm(model.W[order] - expected.W) / np.linalg.norm(expected.W)
    print(
        f"against joint training: relative difference {difference:.1e}, lambda {model.lambda_:g}, {expected.lambda_:g}"
    )
    certificate = points.verify(model, test=(data.x_test, y_test))
    print(f"{len(points.Y)} points retrain to the model up to {certificate.weight_relative_error:.1e}, "
          f"test accuracy {certificate.distilled_accuracy:.4f}")  # fmt: skip


def together(held: list[Any]) -> tuple[Any, Any]:
    """Held-out rows of all tasks, with the names of their classes."""
    return np.concatenate([each.X for each in held]), np.concatenate([each.y.labels() for each in held])


if __name__ == "__main__":
    main()
