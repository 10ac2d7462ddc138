"""
Reading a file with NumPy alone
===============================

A distilled file is an ordinary ``.npz`` archive.
It needs no ``krrdistill`` to be used, in a few years or on a machine that does not have it.

The first part of this page makes a file.
The second part uses NumPy and nothing else.
"""

import json
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import krrdistill as kd

# %%
# With krrdistill: make the file
# ------------------------------
# ``embed_map=True`` stores the weights of the feature map.
# Small maps are stored anyway; of large ones a file has the seed, from which only ``krrdistill`` can draw them again.

data = kd.load_dataset("mnist" if os.environ.get("KRRDISTILL_DATA") else "digits")
phi = kd.make_map("FCNN", data, kd.standardize(data))
result = kd.distill(data.x_train, data.y_train, phi, points_per_class=1)
folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "distilled.npz"
result.distilled.save(path, embed_map=True)
expected = result.model.predict(data.x_test)
images, labels = data.x_test, data.y_test
print(data)
del kd, phi, result

# %%
# With NumPy: what is in the file
# -------------------------------
# ``X`` are the points, scaled, and ``Y`` their labels.
# ``X_origin`` and ``X_unit`` say how raw inputs are scaled.
# ``map_weight_0`` is the weight matrix of the first layer of the feature map.
# ``meta`` is a text in JSON with everything that is not an array.

with np.load(path) as archive:
    file = dict(archive)
folder.cleanup()
meta = json.loads(str(file["meta"]))
for name, array in file.items():
    print(
        f"{name:14} {array.dtype!s:8} {array.shape}"
        if array.ndim
        else f"{name:14} {str(array)[:60]} ..."
    )

# %%
# The feature map
# ---------------
# Each layer multiplies by its weights and applies its activation.
# For this map there is one layer, with the activation LeakyReLU: a negative number is multiplied by a small slope.

layers = meta["map"]["layers"]
print(layers)


def features(scaled):
    """Features of scaled inputs, one row for each sample."""
    for number, layer in enumerate(layers):
        assert layer["activation"] == "leaky_relu"
        scaled = scaled @ file[f"map_weight_{number}"].T.astype(float)
        scaled = np.where(scaled > 0, scaled, layer["parameter"] * scaled)
    return scaled


# %%
# Train
# -----
# The ridge parameter of this file is 0, so least squares is all there is to it.

print("ridge parameter:", file["lambda_s"])
F = features(file["X"])
W = np.linalg.lstsq(F, file["Y"])[0].T
print("the model is a matrix of shape", W.shape)

# %%
# Predict
# -------

scaled = (images.reshape(len(images), -1) - file["X_origin"]) / file["X_unit"]
scores = features(scaled) @ W.T
predicted = scores.argmax(axis=1)
print(f"test accuracy {(predicted == labels).mean():.4f}")
print(
    f"predictions that are those of the original model: {(predicted == expected).mean():.2%}"
)

assert (predicted == expected).all()

# %%
# Some test images with what the model makes of them:

figure, axes = plt.subplots(
    1, 10, figsize=(9, 1.4), layout="compressed", subplot_kw={"xticks": [], "yticks": []}
)
for axis, image, digit in zip(axes, images, predicted, strict=False):
    axis.imshow(image, cmap="gray")
    axis.set_title(str(digit))
plt.show()

# %%
# :doc:`/reference/file-format` lists all arrays, and has a script for every feature map, ridge parameter and way of
# storing the points.
