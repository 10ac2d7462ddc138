"""
Digits in five minutes
======================

A *distilled* data set is a handful of made-up samples that stands in for a large data set.
Training on the handful gives the model that training on everything would have given.

For ridge regression such samples can be computed exactly.
This page distils a data set of handwritten digits to one sample per class, writes the samples to a file, reads the
file back, trains on it, and compares the two models.
"""

import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import krrdistill as kd

# %%
# The data
# --------
# MNIST if its files are there, else the digits of scikit-learn.
# Printing a data set says which one it is.

data = kd.load_dataset("mnist" if os.environ.get("KRRDISTILL_DATA") else "digits")
print(data)

# %%
# The feature map
# ---------------
# The model is linear in *features* of the inputs: its scores are :math:`W \phi(x)`, one score per class, and the class
# with the largest score wins.
# The feature map :math:`\phi` is fixed beforehand.
# Here it is a random neural network with one hidden layer (``FCNN``, fully connected).
# It takes the raw pixels; the scaling to mean 0 and standard deviation 1 is its first stage.

scaling = kd.standardize(data)
phi = kd.make_map("FCNN", data, scaling, seed=0)
print(phi)

# %%
# Distil
# ------
# One call trains the original model and computes the samples.
# The ridge parameter :math:`\lambda` is the one that classifies most samples correctly in a part of the training set
# that was held out.

result = kd.distill(data.x_train, data.y_train, phi, points_per_class=1)
print(result.model)
print(result.distilled)

# %%
# Save and load
# -------------
# The file holds the samples, their labels, the ridge parameter to train with, and the feature map.

folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "distilled.npz"
result.distilled.save(path)
distilled = kd.DistilledDataset.load(path)

original = data.x_train.nbytes + data.y_train.nbytes
points = distilled.inputs.nbytes + distilled.Y.nbytes
print(f"training set:    {len(data.x_train):6} samples, {original:10,} bytes")
print(f"distilled set:   {len(distilled.Y):6} samples, {points:10,} bytes")

# %%
# The picture
# -----------
# The upper row has a real digit of each class, the lower row the distilled samples.
# They look like noise, and this is expected: all that is asked of them is that they train to the right model.
# :ref:`sphx_glr_gallery_plot_10_realism.py` makes some that look like digits.
#
# On the right are the labels, one row for each sample.
# They are numbers, and not all of them are 0 or 1 for every map.

first = [np.flatnonzero(data.y_train == label)[0] for label in range(data.n_classes)]
figure = plt.figure(figsize=(10, 2.4), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=[3, 1])
axes = left.subplots(2, data.n_classes, subplot_kw={"xticks": [], "yticks": []})
for row, images in zip(axes, (data.x_train[first], distilled.samples), strict=True):
    for axis, image in zip(row, images, strict=True):
        axis.imshow(image, cmap="gray")
axes[0, 0].set_ylabel("real")
axes[1, 0].set_ylabel("distilled")
axis = right.subplots()
heat = axis.imshow(
    distilled.Y, cmap="RdBu_r", vmin=-abs(distilled.Y).max(), vmax=abs(distilled.Y).max()
)
axis.set(xlabel="class", ylabel="sample", title="labels")
right.colorbar(heat, shrink=0.6)
plt.show()

# %%
# Train on ten samples
# --------------------
# ``fit`` is ordinary ridge regression on the features of the distilled samples.
# With the ridge parameter 0, least squares from NumPy does the same.

W_S = distilled.fit()
by_hand = np.linalg.lstsq(distilled.features(), distilled.Y)[0].T
print("ridge parameter to train with:", distilled.lambda_s)
print(
    "least squares of NumPy differs by",
    f"{np.linalg.norm(by_hand - W_S) / np.linalg.norm(W_S):.1e}",
)

# %%
# Verify
# ------
# ``verify`` compares both models, as matrices and by their predictions for the test set.
# Equal means equal up to the rounding of the computer: the relative error of the weights is far below one in a
# million, and all predictions agree.

certificate = distilled.verify(result.model, test=data)
print(f"accuracy of the original model:       {certificate.original_accuracy:.4f}")
print(f"accuracy of the model from the file:  {certificate.distilled_accuracy:.4f}")
print(f"predictions that agree:               {certificate.prediction_agreement:.2%}")
print(f"relative error of the weights:        {certificate.weight_relative_error:.1e}")
folder.cleanup()

assert certificate.weight_relative_error < 1e-6
assert certificate.prediction_agreement == 1.0
