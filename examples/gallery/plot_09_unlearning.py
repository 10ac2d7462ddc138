"""
Exact unlearning
================

Somebody asks that their data be removed from a model.
Training again without them is the honest answer, and is usually too expensive.
Here the sums over the samples are subtracted, which takes no other sample.
The model is then the one that never saw them, up to rounding, and so are the points that are made from it.
"""

import os
import time

import matplotlib.pyplot as plt
import numpy as np

import krrdistill as kd

usual = "mnist" if os.environ.get("KRRDISTILL_DATA") else "digits"
data = kd.load_dataset(os.environ.get("DATASET", usual))
phi = kd.make_map(os.environ.get("KERNEL", "identity"), data, kd.standardize(data))
print(data)

# %%
# Who is to be forgotten
# ----------------------
# A tenth of the samples is kept aside to choose :math:`\lambda` by.
# Of the others a thousand are to be forgotten, or a fifth of them where there are fewer.

order = np.random.default_rng(0).permutation(len(data.y_train))
held_out = order[: len(order) // 10]
forget = order[len(held_out) : len(held_out) + min(1000, len(order) // 5)]
keep = order[len(held_out) + len(forget) :]
validation = (data.x_train[held_out], data.y_train[held_out])


def statistics(rows):
    """Sums over these training samples, in float64, so that they can be subtracted."""
    empty = kd.RidgeStatistics(phi, data.n_classes, precision="float64")
    return empty.update(data.x_train, data.y_train, rows=np.sort(rows))


total = statistics(np.concatenate([forget, keep]))
before = kd.fit_model(total, validation=validation)
print(before)

# %%
# Subtract
# --------

start = time.perf_counter()
total -= statistics(forget)
print(
    f"{len(forget)} of {len(forget) + len(keep)} samples taken away in {time.perf_counter() - start:.3g} s"
)
after = kd.fit_model(total, validation=validation)
points = kd.distill_model(after, points_per_class=1)
print(after)

# %%
# Against training without them
# -----------------------------

never = kd.fit_model(statistics(keep), validation=validation)
points_of_never = kd.distill_model(never, points_per_class=1)


def relative(array, expected):
    """Relative difference of two arrays."""
    return np.linalg.norm(array - expected) / np.linalg.norm(expected)


differences = {
    "model before": relative(before.W, never.W),
    "model after": relative(after.W, never.W),
    "points after": relative(points.X, points_of_never.X),
}
for name, value in differences.items():
    print(f"{name:13} relative difference to training without the samples: {value:.1e}")

figure, axis = plt.subplots(figsize=(6, 2.2), layout="constrained")
axis.barh(list(differences), list(differences.values()), log=True)
axis.invert_yaxis()
axis.set(xlabel="relative difference to the model that never saw them", xlim=(1e-17, 10))
plt.show()

assert differences["model after"] <= 1e-9
assert differences["points after"] <= 1e-9

# %%
# The points
# ----------
# The points that were made after the subtraction train to the model that never saw the samples.
# Points that were made before still hold the old model: they have to be made again.

certificate = points.verify(never, test=data)
print(f"relative error of the weights {certificate.weight_relative_error:.1e}, "
      f"test accuracy {certificate.distilled_accuracy:.4f}")  # fmt: skip

assert certificate.weight_relative_error < 1e-9
