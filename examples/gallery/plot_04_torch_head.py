"""
A torch head, trained through the ridge solve
=============================================

``krrdistill.interop.torch`` brings two things into a PyTorch program.

* ``FeatureModule`` is a feature map as a ``torch.nn.Module``.
* ``ridge_solve`` is the solution of ridge regression as an operator with gradients.

``torch.compile`` takes both as they are.
This page trains a head on a frozen network *through* the solve, and then replaces the training set by a few points.
"""

import os

import matplotlib.pyplot as plt

import krrdistill as kd

try:
    import torch

    from krrdistill.interop.torch import FeatureModule, ridge_solve
except ImportError:
    torch = None
    print("PyTorch is not installed, so nothing on this page was run: pip install torch")

data = kd.load_dataset("mnist" if os.environ.get("KRRDISTILL_DATA") else "digits")
print(data)

# %%
# The frozen network
# ------------------
# A small convolutional network with random weights stands in for a pretrained one.
# It gives a vector of features for each image; the last entry is the constant 1, which plays the part of an intercept.


def frozen_network():
    """Random convolutions that are not trained."""
    torch.manual_seed(0)
    side = 2 if data.shape[0] == 8 else 7
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(side),
        torch.nn.Conv2d(16, 16, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
    ).requires_grad_(False)


def features(network, images):
    """Features of images, (n, p) in float64."""
    pixels = torch.as_tensor(images, dtype=torch.float32)[:, None] / float(
        data.x_train.max()
    )
    return torch.nn.functional.pad(network(pixels).double(), (0, 1), value=1.0)


def accuracy(scores, labels):
    """Share of the rows whose largest score is that of their label."""
    return float((scores.argmax(dim=1) == labels).double().mean())


if torch:
    network = frozen_network()
    F, y = features(network, data.x_train[:5000]), torch.as_tensor(data.y_train[:5000])
    F_test, y_test = features(network, data.x_test), torch.as_tensor(data.y_test)
    validation, train = torch.randperm(len(F)).split([len(F) // 7, len(F) - len(F) // 7])
    print(
        f"{len(train)} samples to train on, {len(validation)} to validate, {F.shape[1]} features"
    )

# %%
# Gradients through the solve
# ---------------------------
# The head is :math:`W = C\,(G + \lambda I)^{-1}` with :math:`G = F^T F` and :math:`C = Y^T F`.
# It is solved anew in each step.
# The loss is that on the validation samples.
# Its gradient goes through the solve to :math:`\lambda` and to a *gate*, a factor for each feature.
#
# The step is compiled as one graph (``fullgraph=True``).
# The backend ``aot_eager`` keeps the compilation short; leave it out to get fused kernels.

if torch:
    one_hot = torch.eye(data.n_classes, dtype=torch.float64)
    log_gate = torch.zeros(F.shape[1], dtype=torch.float64, requires_grad=True)
    log_lambda = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def validation_loss(log_gate, log_lambda):
        """Mean squared error of the head on the validation samples."""
        gated = F[train] * log_gate.exp()
        W = ridge_solve(gated.T @ gated, one_hot[y[train]].T @ gated, log_lambda.exp())
        scores = (F[validation] * log_gate.exp()) @ W.T
        return (scores - one_hot[y[validation]]).square().mean()

    optimizer = torch.optim.Adam([log_gate, log_lambda], lr=0.05)
    losses = []
    for _ in range(30):
        loss = validation_loss(log_gate, log_lambda)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print(
        f"validation loss {losses[0]:.4f} -> {losses[-1]:.4f}, lambda 1 -> {log_lambda.exp().item():.3g}"
    )

    assert losses[-1] < losses[0]

# %%

if torch:
    figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    axes[0].plot(losses)
    axes[0].set(xlabel="step", ylabel="validation loss")
    axes[1].hist(log_gate.exp().detach().numpy(), bins=40)
    axes[1].set(xlabel="gate", ylabel="features")
    plt.show()

# %%
# A few points in place of the training set
# -----------------------------------------
# The gated features are now the data, and the map is the identity.
# ``to_torch`` gives the points as a ``TensorDataset``.
# Least squares on them finds the head again.

if torch:
    gate = log_gate.exp().detach()
    result = kd.distill(
        F * gate,
        y,
        kd.Identity(F.shape[1]),
        lambdas=[log_lambda.exp().item()],
        points_per_class=5,
        precision="float64",
    )
    points = result.distilled.to_torch(dtype=torch.float64)
    X_S, Y_S = points.tensors
    W_S = torch.linalg.lstsq(X_S, Y_S, driver="gelsd").solution.T
    original = F_test * gate @ torch.tensor(result.model.W).T
    print(f"ridge head:      accuracy {accuracy(original, y_test):.4f}")
    print(
        f"from {len(points)} points:  accuracy {accuracy(F_test * gate @ W_S.T, y_test):.4f}"
    )

    assert accuracy(original, y_test) == accuracy(F_test * gate @ W_S.T, y_test)

# %%
# A distilled model as a module
# -----------------------------
# ``FeatureModule`` computes the features of a file in PyTorch.
# Followed by a linear layer with the weights of the file it is an ordinary network, which can be compiled and moved to
# a GPU.

if torch:
    result = kd.distill(
        data.x_train, data.y_train, kd.make_map("FCNN", data, kd.standardize(data))
    )
    W = torch.as_tensor(result.distilled.fit())
    head = torch.nn.Linear(W.shape[1], W.shape[0], bias=False, dtype=torch.float64)
    head.weight.data = W
    model = torch.nn.Sequential(
        FeatureModule(result.distilled.feature_map, dtype=torch.float64), head
    )
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        predicted = (
            compiled(torch.as_tensor(data.x_test, dtype=torch.float64))
            .argmax(dim=1)
            .numpy()
        )
    print(model)
    print(f"accuracy of the module:   {(predicted == data.y_test).mean():.4f}")
    print(f"accuracy of the original: {result.model.score(data.x_test, data.y_test):.4f}")

    assert (predicted == result.model.predict(data.x_test)).all()
