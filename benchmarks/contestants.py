"""One run of one contestant in this process: the package, plain NumPy, or cross-validated ridge of other libraries.

    python benchmarks/contestants.py ours --dataset mnist --kernel FCNN --ipc 1

Prints one JSON object: seconds per stage from loaded arrays on, accuracies, and the peak memory of the whole process.
``end_to_end.py`` starts a fresh process per run; ``published.py`` is the fourth contestant and prints the same keys.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import krrdistill as kd
import numpy_pipeline
from memory import peak_rss_bytes
from problem import KERNELS, Problem, load_problem

__all__ = ["CONTESTANTS"]


def run_ours(problem: Problem, kernel: str, ipc: int, out: Path) -> dict[str, Any]:
    """``krrdistill distill`` without the command: from loaded arrays to a certified file."""
    options = kd.DistillOptions(points_per_class=ipc)
    start = time.perf_counter()
    report = kd.run_distillation(problem.dataset, kernel=kernel, options=options, out=out).report
    seconds = {name: value for name, value in report["seconds"].items() if name != "load"}
    seconds["total"] = time.perf_counter() - start
    return {
        "seconds": seconds,
        "lambda": report["lambda"],
        "test_accuracy": report["original"]["test_accuracy"],
        "distilled_test_accuracy": report["distilled"]["test_accuracy"],
        "weight_relative_error": report["certificate"]["weight_relative_error"],
        "prediction_agreement": report["certificate"]["prediction_agreement"],
        "backend": report["backend"],
    }


def run_numpy(problem: Problem, kernel: str, ipc: int, out: Path) -> dict[str, Any]:
    """The plain NumPy pipeline, the drawing of the map included."""
    start = time.perf_counter()
    chain = problem.feature_map(kernel)
    drawing = time.perf_counter() - start
    result = numpy_pipeline.run(problem.dataset, chain, ipc, out)
    result["seconds"]["preprocess"] = drawing
    result["seconds"]["total"] += drawing
    return result


def run_sklearn(problem: Problem, kernel: str, ipc: int, out: Path) -> dict[str, Any]:
    """RidgeClassifierCV over the same lambdas: the original model only, its lambda by leave-one-out."""
    from sklearn.linear_model import RidgeClassifierCV

    start = time.perf_counter()
    chain = problem.feature_map(kernel)
    train = numpy_pipeline.features(chain, problem.x_train)
    features_done = time.perf_counter()
    model = RidgeClassifierCV(alphas=kd.default_lambdas(), fit_intercept=False).fit(train, problem.dataset.y_train)
    fitted = time.perf_counter()
    accuracy = float(model.score(numpy_pipeline.features(chain, problem.x_test), problem.dataset.y_test))
    done = time.perf_counter()
    return {
        "seconds": {
            "features": features_done - start,
            "fit": fitted - features_done,
            "evaluate": done - fitted,
            "total": done - start,
        },
        "lambda": float(model.alpha_),
        "test_accuracy": accuracy,
        "distilled_test_accuracy": None,
    }


def run_himalaya(problem: Problem, kernel: str, ipc: int, out: Path) -> dict[str, Any]:
    """himalaya's RidgeCV on one-hot targets over the same lambdas, a lambda per class, by one split of 5 %."""
    import numpy as np
    from himalaya.ridge import RidgeCV
    from sklearn.model_selection import ShuffleSplit

    start = time.perf_counter()
    chain, y = problem.feature_map(kernel), problem.dataset.y_train
    train = numpy_pipeline.features(chain, problem.x_train)
    features_done = time.perf_counter()
    targets = np.eye(problem.dataset.n_classes, dtype=train.dtype)[y]
    split = ShuffleSplit(n_splits=1, test_size=0.05, random_state=0)
    model = RidgeCV(alphas=kd.default_lambdas(), cv=split).fit(train, targets)
    fitted = time.perf_counter()
    scores = np.asarray(model.predict(numpy_pipeline.features(chain, problem.x_test)))
    accuracy = float(np.mean(scores.argmax(axis=1) == problem.dataset.y_test))
    done = time.perf_counter()
    seconds = {"features": features_done - start, "fit": fitted - features_done, "evaluate": done - fitted}
    return {
        "seconds": {**seconds, "total": done - start},
        "lambda": None,
        "test_accuracy": accuracy,
        "distilled_test_accuracy": None,
    }


CONTESTANTS: dict[str, Callable[[Problem, str, int, Path], dict[str, Any]]] = {
    "ours": run_ours,
    "numpy": run_numpy,
    "sklearn": run_sklearn,
    "himalaya": run_himalaya,
}


def main() -> None:
    """Runs one contestant once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("contestant", choices=tuple(CONTESTANTS))
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--train-rows", type=int, default=None, help="only the first rows of the training set")
    parser.add_argument("--kernel", choices=KERNELS, default="FCNN")
    parser.add_argument("--ipc", type=int, default=1)
    arguments = parser.parse_args()
    problem = load_problem(arguments.dataset, data_dir=arguments.data_dir, train_rows=arguments.train_rows)
    _ = kd.run_distillation  # imports are no part of the run
    with tempfile.TemporaryDirectory() as folder:
        result = CONTESTANTS[arguments.contestant](problem, arguments.kernel, arguments.ipc, Path(folder))
    result |= {name: getattr(arguments, name) for name in ("contestant", "dataset", "kernel", "ipc")}
    print(json.dumps({**result, "peak_memory_bytes": peak_rss_bytes()}))


if __name__ == "__main__":
    main()
