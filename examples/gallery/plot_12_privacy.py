"""
What a file reveals
===================

A distilled file is small, but it is not anonymous.
Whoever has it can compute the model, which depends on every training sample.
Its points may be copies of training images.

This page measures both, and makes a file that comes with a guarantee: differential privacy.
"""

import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import krrdistill as kd
from krrdistill.apps import privacy

data = kd.load_dataset("mnist" if os.environ.get("KRRDISTILL_DATA") else "digits")
phi = kd.make_map("identity", data, kd.standardize(data))
print(data)

# %%
# The model is in the file
# ------------------------
# The attack is ordinary training: ridge regression on the points.
# ``reconstruct`` does it and compares the result with the model that was trained on the data.

files = {
    "noise": kd.distill(data.x_train, data.y_train, phi, points_per_class=5).distilled,
    "realism 1": kd.distill(
        data.x_train, data.y_train, phi, points_per_class=5, realism=1.0
    ).distilled,
}
for name, distilled in files.items():
    attack = privacy.reconstruct(distilled, data)
    print(
        f"{name:10} relative error of the model from the file: {attack.relative_error:.1e}, ",
        end="",
    )
    print(f"test accuracy {attack.test_accuracy:.4f}")

    assert attack.relative_error < 1e-6

# %%
# The images may be in the file
# -----------------------------
# For each point, ``nearest_neighbours`` finds the training image that is nearest to it.
# Distances of test images tell what is near: training never saw those.
# ``near_share`` is the share of points that are nearer than all but 5 % of the test images are, so that fresh images
# would have about 5 %.

near = {
    name: privacy.nearest_neighbours(distilled, data, limit=50)
    for name, distilled in files.items()
}
for name, each in near.items():
    print(
        f"{name:10} median distance {np.median(each.distances):8.2f} per pixel, near_share {each.near_share:.0%}"
    )
print(f"test data  median distance {np.median(each.baseline):8.2f} per pixel")

assert near["realism 1"].near_share > near["noise"].near_share

# %%
# Upper row: points of the file with ``realism=1``.
# Lower row: the training images nearest to them.

figure, axes = plt.subplots(
    2, 10, figsize=(9, 1.9), layout="compressed", subplot_kw={"xticks": [], "yticks": []}
)
nearest = data.x_train[near["realism 1"].nearest]
for name, row, images in zip(
    ("point", "nearest"), axes, (files["realism 1"].samples, nearest), strict=True
):
    row[0].set_ylabel(name)
    for axis, image in zip(row, images, strict=False):
        axis.imshow(image, cmap="gray", vmin=0, vmax=data.x_train.max())
plt.show()

# %%
# Large distances prove nothing: the model itself depends on every sample, and an attack can start there.
#
# A file with a guarantee
# -----------------------
# ``private_release`` adds noise to the model before it makes the points.
# The file is then (epsilon, delta)-*differentially private*: with any one sample replaced by another one, every outcome
# keeps nearly its probability, up to a factor of exp(epsilon) and an exception of delta.
# Small epsilon means strong protection.
#
# OpenDP draws the noise: ``pip install "krrdistill[privacy]"``.

EPSILONS, accuracies = (0.3, 1.0, 10.0), []
try:
    for epsilon in EPSILONS:
        with tempfile.TemporaryDirectory() as folder:
            options = privacy.ReleaseOptions(
                mechanism="output", budget=privacy.PrivacyBudget(epsilon, 1e-5)
            )
            release = privacy.private_release(data, options=options, out=Path(folder))
        accuracies.append(release.certificate.distilled_accuracy)
        print(f"epsilon {epsilon:4}: test accuracy {accuracies[-1]:.4f}")
except kd.BackendUnavailable as error:
    print("this part was left out:", error)

# %%
if accuracies:
    plain = (
        files["noise"]
        .verify(test=data, model=(files["noise"].fit(), None))
        .distilled_accuracy
    )
    figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
    axis.semilogx(EPSILONS, accuracies, "o-", label="private file")
    axis.axhline(plain, color="grey", linestyle="--", label="without noise")
    axis.set(
        xlabel="epsilon (protection is stronger to the left)",
        ylabel="test accuracy",
        ylim=(0, 1),
    )
    axis.legend()
    plt.show()

    assert release.distilled.meta["privacy"]["epsilon"] == EPSILONS[-1]

# %%
# Protection costs accuracy, and less of it the more samples there are.
# :doc:`/guide/privacy` says what the guarantee covers, what it does not, and what the theorem of the paper needs.
