"""A ridge head on a frozen network, trained through the solve and then distilled to a few points.

Every epoch solves the head anew, W = C (G + lambda I)^-1 from the statistics of the training features, and follows the
gradient of the validation loss through that solve to what is trained: a gate for every feature, and lambda. At the end
the training set is replaced by some points per class, from which the same head comes back.

    pip install "krrdistill[cli]" torch
    python examples/torch_ridge_head.py
"""

from __future__ import annotations

import time

import torch

import krrdistill as kd
from krrdistill.interop.torch import ridge_solve

EPOCHS = 30
POINTS_PER_CLASS = 5


def frozen_extractor() -> torch.nn.Module:
    """A small convolutional network with random weights; any pretrained one would do."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 32, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(32, 32, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
    ).requires_grad_(False)


def accuracy(scores: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of the rows whose largest score is that of their label."""
    return float((scores.argmax(dim=1) == labels).double().mean())


def main() -> None:
    """Trains, distils, compares."""
    began = time.perf_counter()
    digits = kd.load_dataset("digits")
    extractor = frozen_extractor()

    def features(images: object) -> torch.Tensor:
        found = extractor(torch.as_tensor(images, dtype=torch.float32)[:, None] / 16.0).double()
        return torch.nn.functional.pad(found, (0, 1), value=1.0)  # the last feature is the intercept

    F, y = features(digits.x_train), torch.as_tensor(digits.y_train)
    F_test, y_test = features(digits.x_test), torch.as_tensor(digits.y_test)
    order = torch.randperm(len(F))
    validation, train = order[:200], order[200:]
    classes = torch.eye(digits.n_classes, dtype=torch.float64)

    log_gate = torch.zeros(F.shape[1], dtype=torch.float64, requires_grad=True)
    log_lambda = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([log_gate, log_lambda], lr=0.05)
    for epoch in range(EPOCHS):
        gated = F[train] * log_gate.exp()
        W = ridge_solve(gated.T @ gated, classes[y[train]].T @ gated, log_lambda.exp())
        scores = (F[validation] * log_gate.exp()) @ W.T
        loss = (scores - classes[y[validation]]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if epoch % 10 == 0:
            held_out = accuracy(scores.detach(), y[validation])
            found = f"lambda {log_lambda.exp().item():.3f}  held out {held_out:.4f}"
            print(f"epoch {epoch:2d}  loss {loss.item():.4f}  {found}")

    gate = log_gate.exp().detach()
    result = kd.distill(
        F * gate,
        y,
        kd.Identity(F.shape[1]),
        lambdas=[log_lambda.exp().item()],
        points_per_class=POINTS_PER_CLASS,
        precision="float64",
        seed=0,
    )
    print(f"ridge head:            accuracy {accuracy(F_test * gate @ torch.from_numpy(result.model.W).T, y_test):.4f}")

    points = result.distilled.to_torch(dtype=torch.float64)  # a TensorDataset: all that is left of the training set
    X, Y = points.tensors
    W = torch.linalg.lstsq(X, Y, driver="gelsd").solution.T
    print(f"from {len(points)} points:        accuracy {accuracy(F_test * gate @ W.T, y_test):.4f}")
    print(f"{len(F)} images became {len(points)} points in {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
