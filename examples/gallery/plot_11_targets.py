"""
Regression and several labels
=============================

Ridge regression does not ask what the targets are.
Real numbers can be distilled as well as classes, and so can several yes/no labels for each sample.
"""

import os

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge

import krrdistill as kd

# %%
# Regression: two patients for hundreds
# -------------------------------------
# The diabetes data of scikit-learn have ten measurements of 442 patients, and how far the disease had progressed a year
# later.
# The last hundred patients are the test set.
#
# The progression is a whole number, which might be a class: ``targets="real"`` says that it is a quantity.
# ``intercept=True`` fits a constant besides the ten coefficients.
# ``selection="gcv"`` chooses the ridge parameter by generalised cross-validation, which holds no patient out.
# ``realism=1`` asks for points that look like patients.

X, y = load_diabetes(return_X_y=True)
train, test = slice(0, -100), slice(-100, None)
result = kd.distill(
    X[train],
    y[train],
    kd.Identity(10),
    targets="real",
    selection="gcv",
    intercept=True,
    points_per_class=2,
    realism=1.0,
    lambda_s=1.0,
    precision="float64",
)
points = result.distilled
print(
    f"{len(y[train])} patients -> {len(points.Y)} points, ridge parameter to train with: {points.lambda_s:g}"
)

# %%
# Any ridge regression can be trained on the two points, that of scikit-learn for example.

ridge = Ridge(alpha=points.lambda_s).fit(points.X, points.Y)
original = result.model.predict(X[test]).ravel()
distilled = ridge.predict(X[test]).ravel()
print(
    f"R2 on the test patients, original model:  {result.model.score(X[test], y[test]):.4f}"
)
print(f"R2 on the test patients, from the points: {ridge.score(X[test], y[test]):.4f}")

assert np.allclose(original, distilled, rtol=1e-6)

# %%
# The two models predict the same for every patient.
# The prediction itself is only as good as a linear model can be.

figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
axes[0].plot(original, distilled, "o", alpha=0.6)
axes[0].set(xlabel="prediction, original model", ylabel="prediction, from two points")
axes[1].plot(y[test], distilled, "o", alpha=0.6)
axes[1].set(xlabel="progression that was measured", ylabel="prediction, from two points")
plt.show()

# %%
# Several labels for each sample
# ------------------------------
# A column of 0 and 1 for each label makes a *multi-label* problem.
# Each sample can have any number of labels.
# A label is predicted where its score exceeds one half.
#
# The labels here are made from the digits: is the digit even, is it at least five, is it drawn with a closed loop?

data = kd.load_dataset("mnist" if os.environ.get("KRRDISTILL_DATA") else "digits")
print(data)


def questions(digits):
    """Three answers for each digit, 0 or 1."""
    return np.stack(
        [digits % 2 == 0, digits >= 5, np.isin(digits, (0, 6, 8, 9))], axis=1
    ).astype(np.int64)


names = ("even", "at least five", "closed loop")
phi = kd.make_map("FCNN", data, kd.standardize(data))
result = kd.distill(
    data.x_train,
    questions(data.y_train),
    phi,
    selection="gcv",
    intercept=True,
    points_per_class=2,
)
certificate = result.distilled.verify(
    result.model, test=(data.x_test, questions(data.y_test))
)
accuracies = (
    certificate.per_target["original"]["accuracy"],
    certificate.per_target["distilled"]["accuracy"],
)
print(
    f"{len(data.x_train)} samples -> {len(result.distilled.Y)} points, {result.distilled.targets}"
)
for name, before, after in zip(names, *accuracies, strict=True):
    print(f"{name:14} test accuracy {before:.4f}, from the points {after:.4f}")

assert certificate.prediction_agreement == 1.0

# %%
# The points and their labels, which are real numbers:

images, Y = result.distilled.samples, result.distilled.Y
figure, axes = plt.subplots(
    1,
    len(images),
    figsize=(9, 2),
    layout="compressed",
    subplot_kw={"xticks": [], "yticks": []},
)
for axis, image, labels in zip(axes, images, Y, strict=True):
    axis.imshow(image, cmap="gray")
    axis.set_title("\n".join(f"{value:+.2f}" for value in labels), fontsize=8)
axes[0].set_ylabel("\n".join(names), rotation=0, ha="right", va="center", fontsize=8)
plt.show()

# %%
# :doc:`/guide/targets` has sample weights, a ridge parameter for each target, and what counts as classes.
