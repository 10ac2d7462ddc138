r"""
Shards and merging
==================

A ridge model needs no samples, only sums over them.
The two large ones are

.. math::
    G = \sum_i \phi(x_i)\,\phi(x_i)^T \qquad\text{and}\qquad C = \sum_i y_i\,\phi(x_i)^T ,

where :math:`\phi` is the feature map and :math:`y_i` the one-hot label.
``RidgeStatistics`` holds them.
Sums can be added, so the data may lie in several files (shards), on several machines, or come as a stream.
The result is that of all data in one place.
"""

import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import krrdistill as kd

data = kd.load_dataset("mnist" if os.environ.get("KRRDISTILL_DATA") else "digits")
phi = kd.make_map("identity", data, kd.standardize(data))
X, y = data.x_train, data.y_train
print(data)

# %%
# One object per shard
# --------------------
# Each shard is summed alone, perhaps on another machine, and saved.
# With a name for each shard none can be counted twice by mistake.

folder = tempfile.TemporaryDirectory()
paths = []
for number, rows in enumerate(np.array_split(np.arange(len(X)), 4)):
    part = kd.RidgeStatistics(
        phi, data.n_classes, precision="float64", shard=f"shard {number}"
    )
    part.update(X[rows], y[rows])
    paths.append(Path(folder.name) / f"statistics-{number}.npz")
    part.save(paths[-1])
    print(part, f"{paths[-1].stat().st_size / 1e3:,.0f} kB")

# %%
# Merge
# -----
# The files are read back and added.
# A file has the description of its feature map, and statistics of different maps do not add.

total = kd.RidgeStatistics.load(paths[0])
for path in paths[1:]:
    total += kd.RidgeStatistics.load(path)
print(total, sorted(total.shards))

try:
    total += kd.RidgeStatistics.load(paths[0])
except kd.DataError as error:
    print("refused:", error)

# %%
# The same as one pass
# --------------------
# The sums differ by rounding only.
# Solving for the model magnifies this difference by the condition number of the system, and it is small all the same.

one_pass = kd.RidgeStatistics(phi, data.n_classes, precision="float64").update(X, y)
difference = np.linalg.norm(total.gram - one_pass.gram) / np.linalg.norm(one_pass.gram)
print(f"relative difference of G: {difference:.1e}")

merged, expected = (
    kd.fit_model(statistics, selection="gcv") for statistics in (total, one_pass)
)
of_models = np.linalg.norm(merged.W - expected.W) / np.linalg.norm(expected.W)
print(
    f"relative difference of the models: {of_models:.1e}, lambda {merged.lambda_:g} and {expected.lambda_:g}"
)

assert difference <= 1e-12
assert of_models <= 1e-9

# %%
# ``selection="gcv"`` chooses :math:`\lambda` by generalised cross-validation, which needs the statistics alone.
#
# The picture shows how the matrix :math:`G` of a shard of the data approaches that of all data, divided by the number
# of samples.
# Row and column are pixels.

figure, axes = plt.subplots(
    1, 3, figsize=(9, 3.2), layout="constrained", subplot_kw={"xticks": [], "yticks": []}
)
for axis, statistics, title in zip(
    axes,
    (kd.RidgeStatistics.load(paths[0]), kd.RidgeStatistics.load(paths[1]), total),
    ("first shard", "second shard", "all four, merged"),
    strict=True,
):
    image = axis.imshow(statistics.gram / statistics.n, cmap="RdBu_r", vmin=-1, vmax=1)
    axis.set_title(title)
figure.colorbar(image, ax=axes)
plt.show()
folder.cleanup()

# %%
# A stream
# --------
# ``update_batches`` reads batches from any iterable, here a generator, in one pass.
# It sets aside a part of the rows, chosen by a hash of the row number, to choose :math:`\lambda` by.
# How the stream is cut into batches changes nothing, not even the last bit.


def stream(size):
    """The training samples, ``size`` at a time."""
    for start in range(0, len(X), size):
        yield X[start : start + size], y[start : start + size]


models = []
for size in (100, 333):
    statistics = kd.RidgeStatistics(phi, data.n_classes)
    held_out = statistics.update_batches(stream(size), holdout=0.05)
    models.append(kd.fit_model(statistics, validation=held_out))
    print(
        f"batches of {size}: {statistics.n} samples summed, {len(held_out)} set aside, {models[-1]}"
    )

assert np.array_equal(models[0].W, models[1].W)

# %%
# :doc:`/guide/statistics` has more: going on after a crash, classes that come later, taking samples away,
# and the same on the command line.
# :doc:`/guide/clusters` does it with Dask, Ray and torch.distributed.
