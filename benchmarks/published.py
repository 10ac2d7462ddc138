"""The published algorithm in PyTorch, written plainly from its description: the row that the project is compared with.

    python benchmarks/published.py --dataset mnist --kernel FCNN --ipc 1 --json
    python benchmarks/published.py --random 50000 --device cuda --json

Chen, Huang, Weng, NeurIPS 2024: float32 throughout; the features of the whole training set in memory; for each lambda
a Gram matrix phi phi^T + lambda I, a least-squares solve for W and the accuracies; the best lambda by validation;
distilled features and inputs by pseudo-inverses (noise start, lambda_s = 0); a model retrained from them.
Samples are columns, as in the paper. Data are loaded by krrdistill; nothing else of it is used.

On a GPU everything is there from the first stage on, which copies the bytes; seconds of a stage end when the device is
done, TF32 is off, and "seconds" are of the second run in the process ("first_seconds" of the first).
"""

# mypy: disable-error-code="import-not-found"
# The package does not need torch.
from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from memory import peak_rss_bytes
from problem import Problem, load_problem, random_problem

SLOPE = 0.1  # of the LeakyReLU
SIGMA2 = 1000.0  # of the random Fourier features
VALIDATION = 0.05
NOISE = 0.1  # standard deviation of Z relative to that of Y^+ W


@dataclass(frozen=True)
class FeatureMap:
    """phi on columns: x, LeakyReLU(A x), or sqrt(2/p) cos(A x + b)."""

    kernel: str
    A: Tensor
    b: Tensor

    @staticmethod
    def draw(kernel: str, d: int, generator: torch.Generator) -> FeatureMap:
        """Gaussian weights of width p = d."""
        if kernel == "identity":
            return FeatureMap(kernel, torch.empty(0), torch.empty(0))
        variance, device = 1.0 / SIGMA2 if kernel == "random_fourier" else 1.0 / d, generator.device
        A = math.sqrt(variance) * torch.randn(d, d, generator=generator, device=device)
        return FeatureMap(kernel, A, 2.0 * math.pi * torch.rand(d, 1, generator=generator, device=device))

    def __call__(self, X: Tensor) -> Tensor:
        if self.kernel == "identity":
            return X
        if self.kernel == "FCNN":
            return torch.nn.functional.leaky_relu(self.A @ X, SLOPE)
        return math.sqrt(2.0 / len(self.A)) * torch.cos(self.A @ X + self.b)

    def preimage(self, F: Tensor) -> Tensor:
        """Inputs with these features; random Fourier features are divided by their largest, as published."""
        if self.kernel == "identity":
            return F
        inverse: Tensor = torch.linalg.pinv(self.A)
        if self.kernel == "FCNN":
            return inverse @ torch.where(F > 0, F, F / SLOPE)
        return inverse @ (torch.arccos(F / F.abs().max()) - self.b)


def solve_ridge(phi: Tensor, Y: Tensor, value: float, driver: str) -> Tensor:
    """W = Y phi^T (phi phi^T + lambda I)^-1 by least squares with the p x p system."""
    gram = phi @ phi.T + value * torch.eye(len(phi), device=phi.device)
    transposed: Tensor = torch.linalg.lstsq(gram, phi @ Y.T, driver=driver).solution
    return transposed.T


def accuracy(W: Tensor, phi: Tensor, labels: Tensor) -> float:
    """Share of columns whose largest score is the label's."""
    return float((torch.argmax(W @ phi, dim=0) == labels).float().mean())


def search(
    train: tuple[Tensor, Tensor], validation: tuple[Tensor, Tensor], k: int, lambdas: list[float], driver: str
) -> tuple[Tensor, float, list[dict[str, float]]]:
    """W of the lambda that validates best, that lambda, and the accuracies of all."""
    targets = torch.nn.functional.one_hot(train[1], k).T.float()
    path, best, best_accuracy = [], (torch.empty(0), math.nan), -1.0
    for value in lambdas:
        W = solve_ridge(train[0], targets, value, driver)
        found = {"lambda": value, "train": accuracy(W, *train), "validation": accuracy(W, *validation)}
        path.append(found)
        if found["validation"] > best_accuracy:
            best, best_accuracy = (W, value), found["validation"]
    return *best, path


def construct(W: Tensor, ipc: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """phi_S = D^+ with D = Y_S^+ W + (I - Y_S^+ Y_S) Z."""
    (k, p), device = W.shape, W.device
    Y_S = torch.eye(k, device=device).repeat(1, ipc)
    inverse = torch.linalg.pinv(Y_S)
    fixed = inverse @ W
    Z = NOISE * fixed.std() * torch.randn(ipc * k, p, generator=generator, device=device)
    D = fixed + (torch.eye(ipc * k, device=device) - inverse @ Y_S) @ Z
    return torch.linalg.pinv(D), Y_S


def run(
    problem: Problem, kernel: str, ipc: int, seed: int, driver: str, device: torch.device | None = None
) -> dict[str, Any]:
    """Everything from the loaded arrays to the test accuracy of the retrained model, with seconds per stage."""
    device = device or torch.device("cpu")

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    seconds, last = {"total": 0.0}, clock()

    def lap(name: str) -> None:
        nonlocal last
        now = clock()
        seconds[name], seconds["total"], last = now - last, seconds["total"] + now - last, now

    generator = torch.Generator(device).manual_seed(seed)
    k, d = problem.dataset.n_classes, problem.dataset.input_dim
    scale, shift = (
        torch.tensor(v, dtype=torch.float32, device=device)[:, None]
        for v in (problem.scaling.scale, problem.scaling.shift)
    )
    X, X_test = (torch.tensor(x, device=device).T.float() * scale + shift for x in (problem.x_train, problem.x_test))
    y, y_test = (torch.tensor(labels, device=device) for labels in (problem.dataset.y_train, problem.dataset.y_test))
    order = torch.randperm(len(y), generator=generator, device=device)
    held_out = round(VALIDATION * len(y))
    rows_val, rows_train = order[:held_out], order[held_out:]
    lap("preprocess")
    phi = FeatureMap.draw(kernel, d, generator)
    train, validation = (phi(X[:, rows_train]), y[rows_train]), (phi(X[:, rows_val]), y[rows_val])
    lap("features")
    first = -3.0 if kernel == "identity" else -6.0
    lambdas = [10.0 ** (first + 0.5 * i) for i in range(round((5.5 - first) / 0.5) + 1)]
    W, chosen, path = search(train, validation, k, lambdas, driver)
    lap("path")
    F_S, Y_S = construct(W, ipc, generator)
    lap("construct")
    X_S = phi.preimage(F_S)
    lap("preimage")
    W_S = Y_S @ torch.linalg.pinv(phi(X_S))
    lap("retrain")
    test = phi(X_test)
    original, distilled = accuracy(W, test, y_test), accuracy(W_S, test, y_test)
    lap("evaluate")
    return {
        "contestant": "published",
        "dataset": problem.dataset.name,
        "kernel": kernel,
        "ipc": ipc,
        "n_train": len(rows_train),
        "n_val": held_out,
        "n_test": len(y_test),
        "lambdas": len(lambdas),
        "lambda": chosen,
        "path": path,
        "test_accuracy": original,
        "distilled_test_accuracy": distilled,
        "weight_relative_error": float(torch.linalg.norm(W_S - W) / torch.linalg.norm(W)),
        "seconds": seconds,
        "peak_memory_bytes": peak_rss_bytes(),
        "versions": {"torch": torch.__version__},
        "threads": torch.get_num_threads(),
        "driver": driver,
        "device": str(device),
    }


def run_on_gpu(problem: Problem, kernel: str, ipc: int, seed: int, driver: str, device: torch.device) -> dict[str, Any]:
    """The second of two runs, with the seconds of the first, the GPU and its peak memory."""
    torch.set_float32_matmul_precision("highest")  # no TF32
    first = run(problem, kernel, ipc, seed, driver, device)
    torch.cuda.reset_peak_memory_stats(device)
    result = run(problem, kernel, ipc, seed, driver, device)
    return {
        **result,
        "first_seconds": first["seconds"],
        "gpu": torch.cuda.get_device_name(device),
        "peak_device_bytes": torch.cuda.max_memory_allocated(device),
    }


def main() -> None:
    """Runs one cell; with --json one object is the last line of stdout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--train-rows", type=int, default=None, help="only the first rows of the training set")
    parser.add_argument("--kernel", choices=("identity", "random_fourier", "FCNN"), default="FCNN")
    parser.add_argument("--ipc", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--random", type=int, default=None, metavar="N", help="N random images of CIFAR-100's size")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument(
        "--driver", choices=("gelsy", "gels"), default=None, help="torch.linalg.lstsq's; its own defaults: gels on CUDA"
    )
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error(f"--device {device}: PyTorch {torch.__version__} sees no GPU")
    driver = arguments.driver or ("gels" if device.type == "cuda" else "gelsy")
    if arguments.random is not None:
        problem = random_problem(arguments.random)
    else:
        problem = load_problem(arguments.dataset, data_dir=arguments.data_dir, train_rows=arguments.train_rows)
    whole = run if device.type == "cpu" else run_on_gpu
    result = whole(problem, arguments.kernel, arguments.ipc, arguments.seed, driver, device)
    if arguments.json:
        print(json.dumps(result))
        return
    for row in result["path"]:
        train, validation = 100 * row["train"], 100 * row["validation"]
        print(f"lambda {row['lambda']:10.3g}  train {train:6.2f}%  validation {validation:6.2f}%")
    print(f"lambda {result['lambda']:.3g}, test {100 * result['test_accuracy']:.2f}% -> "
          f"{100 * result['distilled_test_accuracy']:.2f}%")  # fmt: skip
    print(", ".join(f"{name} {value:.2f} s" for name, value in result["seconds"].items()))


if __name__ == "__main__":
    main()
