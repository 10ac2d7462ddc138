"""
Embeddings of a frozen backbone
===============================

A common way to use a large network is to freeze it.
Its last hidden layer turns each input into a vector, the *embedding*, and only a small linear model, the *head*, is
trained on the embeddings.

A ridge head needs one pass over the embeddings.
After that a few points are enough to train it again.
This page makes such points from embeddings that lie in float16 files.
"""

import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import krrdistill as kd

# %%
# A stand-in for the backbone
# ---------------------------
# A page that runs in a minute has no room for a real network.
# Principal components of the pixels stand in for the embeddings here.
# Only ``embed`` would change for a real backbone.

data = kd.load_dataset("mnist" if os.environ.get("KRRDISTILL_DATA") else "digits")
pixels = data.x_train.reshape(len(data.x_train), -1) / data.x_train.max()
mean = pixels.mean(axis=0)
_, directions = np.linalg.eigh(np.cov(pixels.T))
d = min(256, pixels.shape[1] * 3 // 4)


def embed(images):
    """Principal components of images, as a network would give them: (n, d) in float16."""
    flat = images.reshape(len(images), -1) / data.x_train.max()
    return ((flat - mean) @ directions[:, -d:]).astype(np.float16)


print(data)
print("length of an embedding:", d)

# %%
# Shards on disk
# --------------
# Embeddings of a large data set are usually stored in several files, the shards.

folder = tempfile.TemporaryDirectory()
for number, rows in enumerate(
    np.array_split(np.random.default_rng(0).permutation(len(data.x_train)), 4)
):
    np.savez(
        Path(folder.name) / f"shard-{number}.npz",
        X=embed(data.x_train[rows]),
        y=data.y_train[rows],
    )


def read_shards():
    """One (X, y) pair after the other; only one shard is in memory."""
    for path in sorted(Path(folder.name).glob("shard-*.npz")):
        with np.load(path) as shard:
            yield shard["X"], shard["y"]


# %%
# Two heads
# ---------
# ``Identity`` is a linear head.
# ``RandomFourier`` passes the embeddings through random cosines first, which makes the head approximate a Gaussian
# kernel.
# With at most as many cosines as the embedding has entries, the points are exact.
# The width of the kernel, ``sigma2``, is the median of the squared distances between embeddings.
#
# The statistics are sums over the samples: they are all that the head needs.
# One pass fills them and sets aside every twentieth sample, by which :math:`\lambda` is chosen.

sample = next(read_shards())[0].astype(np.float32)
heads = {
    "Identity": kd.Identity(d),
    "RandomFourier": kd.make_map("random_fourier", sample, seed=0),
}
X_test = embed(data.x_test)
models, certificates = {}, {}
for name, phi in heads.items():
    statistics = kd.RidgeStatistics(phi, data.n_classes)
    held_out = statistics.update_batches(read_shards(), holdout=0.05)
    models[name] = kd.fit_model(statistics, validation=held_out, center="both")
    points = kd.distill_model(models[name], points_per_class=1)
    certificates[name] = points.verify(models[name], test=(X_test, data.y_test))
    print(f"{name:14} {statistics.n} samples -> {len(points.Y)} points")
    print(f"{'':14} test accuracy {certificates[name].original_accuracy:.4f}, ", end="")
    print(f"from the points {certificates[name].distilled_accuracy:.4f}")

folder.cleanup()

# %%
# ``center="both"`` adds an intercept to the head, a constant for each class.
#
# Which head is better depends on the embeddings: with those of a good network a linear head is often enough.
# The picture shows how the accuracy on the samples that were set aside depends on :math:`\lambda`.

figure, axis = plt.subplots(figsize=(6, 3.5), layout="constrained")
for name, model in models.items():
    line = axis.semilogx(model.path.lambdas, model.path.val_accuracy, label=name)
    axis.plot(model.lambda_, model.val_accuracy, "o", color=line[0].get_color())
axis.set(
    xlabel="λ", ylabel="accuracy, samples set aside", title="dots: the λ that was chosen"
)
axis.legend()
plt.show()

for certificate in certificates.values():
    assert certificate.prediction_agreement == 1.0
    assert certificate.weight_relative_error < 1e-6
