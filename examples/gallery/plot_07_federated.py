"""
One round of federated learning
===============================

Several sites hold data that must not leave them, hospitals for example.
Each site sends sums over its samples, and the server solves.
No sample is sent, one round of sums is enough, and the model is that of all data in one place.

The sites on this page are functions in one program.
``examples/federated_flower.py`` has them as processes of the framework Flower.
"""

import os

import matplotlib.pyplot as plt
import numpy as np

import krrdistill as kd
from krrdistill.apps import privacy

usual = "mnist" if os.environ.get("KRRDISTILL_DATA") else "digits"
KERNEL = os.environ.get("KERNEL", "identity")
SITES = 4
data = kd.load_dataset(os.environ.get("DATASET", usual))
test, k = (data.x_test, data.y_test), data.n_classes
print(data)

# %%
# The sites
# ---------
# The samples are sorted by class and cut into four parts, so that the sites differ as much as they can.

site_rows = np.array_split(np.argsort(data.y_train, kind="stable"), SITES)
sites = [(data.x_train[rows], data.y_train[rows]) for rows in site_rows]

counts = np.array([np.bincount(y, minlength=k) for _, y in sites])
figure, axis = plt.subplots(figsize=(6, 2.8), layout="constrained")
bottom = np.zeros(k)
for number, row in enumerate(counts, start=1):
    axis.bar(np.arange(k), row, bottom=bottom, label=f"site {number}")
    bottom += row
axis.set(xlabel="class", ylabel="samples")
axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
plt.show()

# %%
# Round 1: a scaling for all
# --------------------------
# The statistics of two sites add only if both scale their inputs alike.
# Each site sends sums and sums of squares of its inputs (``Moments``), and the server makes the scaling of them.
# The server has a test set of its own, and takes the size of an input from that.

moments = kd.Moments.of(sites[0][0])
for X, _ in sites[1:]:
    moments = moments + kd.Moments.of(X)
phi = kd.make_map(KERNEL, data.x_test[:1000], kd.standardize(moments))
print(phi)

# %%
# Round 2: the statistics
# -----------------------
# Each site sums nineteen of twenty samples and keeps the others for the next round.
# What it sends are a few arrays.

total, held_out = kd.RidgeStatistics(phi, k, precision="float64"), []
for number, site in enumerate(sites):
    own = kd.RidgeStatistics(phi, k, precision="float64", shard=f"site {number}")
    held_out.append(own.update_batches([site], holdout=0.05, seed=number))
    header, arrays = own.to_arrays()
    print(
        f"site {number + 1} sends {sum(array.nbytes for array in arrays.values()) / 1e3:,.0f} kB of {own.n} samples"
    )
    total += kd.RidgeStatistics.from_arrays(phi, header, arrays)

# %%
# Round 3: the ridge parameter
# ----------------------------
# The server solves for a grid of :math:`\lambda`.
# Each site counts how many of its held-out samples each of these models gets right.
# The counts add, and the :math:`\lambda` with the largest sum is taken.

path = kd.ridge_path(total)
correct = kd.count_correct(path, total, held_out[0])
for rows in held_out[1:]:
    correct = correct + kd.count_correct(path, total, rows)
model = kd.fit_model(total, validation=correct)
points = kd.distill_model(model, points_per_class=1)
print(model)
print(points)

# %%
# Against all data in one place
# -----------------------------
# Somebody with all data would have got the same model, and so would a reader of the points.

pooled = kd.RidgeStatistics(phi, k, precision="float64")
for number, site in enumerate(sites):
    pooled.update_batches([site], holdout=0.05, seed=number)
expected = kd.fit_model(pooled, validation=correct)
difference = np.linalg.norm(model.W - expected.W) / np.linalg.norm(expected.W)
certificate = points.verify(model, test=test)
print(f"relative difference to the model of the pooled data: {difference:.1e}")
print(
    f"test accuracy {certificate.original_accuracy:.4f}, from the points {certificate.distilled_accuracy:.4f}"
)

assert difference <= 1e-9
assert certificate.distilled_accuracy == certificate.original_accuracy

# %%
# With noise
# ----------
# Sums hide single samples, but they do not guarantee it.
# *Differential privacy* is such a guarantee: noise of a known size is added, so that the sums with and without any one
# sample can hardly be told apart.
# The smaller the number epsilon, the harder it is.
#
# Here each site adds the noise itself, so that it need not trust the server.
# The noise grows with the number of features, and the map below therefore has few of them.
# It uses nothing that was computed from the data.
# OpenDP draws the noise: ``pip install "krrdistill[privacy]"``.

budget = privacy.PrivacyBudget(epsilon=8.0, delta=1e-5)
private_accuracy = None
try:
    public = privacy.public_inputs(data, "FCNN", {"widths": [64]}, seed=0)
    B = privacy.default_norm_bound(public)
    G, C = np.zeros((64, 64)), np.zeros((k, 64))
    for X, y in sites:
        clipped = privacy.clipped_statistics(X, y, public, k, norm_bound=B)
        noisy = privacy.private_statistics(clipped, budget)
        G, C = G + noisy[0], C + noisy[1]
except kd.BackendUnavailable as error:
    print("this part was left out:", error)
else:
    lambda_ = (
        privacy.default_lambda("statistics", budget, B, len(data.y_train), 64)
        * SITES**0.5
    )
    scores = (
        public.transform(test[0], dtype=float) @ privacy.private_weights(G, C, lambda_).T
    )
    private_accuracy = float((scores.argmax(axis=1) == test[1]).mean())
    print(
        f"each site ({budget.epsilon:g}, {budget.delta:g})-differentially private: accuracy {private_accuracy:.4f}"
    )

# %%
# What each way is worth
# ----------------------
# A site that learns alone knows only the classes that it has seen.

alone = []
for X, y in sites:
    own = kd.RidgeStatistics(phi, np.unique(y)).update(X, y)
    predicted = kd.fit_model(own, selection="gcv").predict(test[0])
    alone.append(float((predicted == test[1]).mean()))

bars = {
    f"site {number} alone": accuracy for number, accuracy in enumerate(alone, start=1)
}
bars |= {
    "one round": certificate.original_accuracy,
    "from the points": certificate.distilled_accuracy,
}
bars |= {} if private_accuracy is None else {"with noise,\n64 features": private_accuracy}
figure, axis = plt.subplots(figsize=(7, 2.8), layout="constrained")
axis.barh(list(bars), list(bars.values()))
axis.invert_yaxis()
axis.set(xlabel="test accuracy, all classes")
plt.show()

assert max(alone) < certificate.original_accuracy
