"""
A cell of the paper's tables
============================

The paper compares two ways to make ten images that stand in for a data set.

* *KIP* (kernel inducing points) moves the images by gradient descent, for 30,000 steps.
* The *closed form* computes them at once.

This page fills one cell of the comparison: accuracy (Table 3) and time (Table 4).
It takes a few steps of KIP and extrapolates the time of the others.
``krrdistill reproduce table4`` fills the whole table.
"""

import os

import matplotlib.pyplot as plt

import krrdistill as kd

data = kd.load_dataset("mnist" if os.environ.get("KRRDISTILL_DATA") else "digits")
phi = kd.make_map("FCNN", data, kd.standardize(data))
STEPS, PUBLISHED_STEPS = 20, 30_000
print(data)

# %%
# The closed form
# ---------------

result = kd.distill(data.x_train, data.y_train, phi, points_per_class=1)
certificate = result.distilled.verify(result.model, test=data)
print(f"original model:             test accuracy {certificate.original_accuracy:.4f}")
print(f"from ten distilled images:  test accuracy {certificate.distilled_accuracy:.4f}")
print(
    "seconds:",
    {stage: float(f"{seconds:.2g}") for stage, seconds in result.seconds.items()},
)

assert certificate.prediction_agreement == 1.0

# %%
# KIP
# ---
# There are two variants with the same loss and the same steps, up to rounding.
# ``published`` goes through features of the training samples in PyTorch, as the paper's code does.
# ``gram`` needs only sums over the samples, and its steps are much faster.

runs = {
    "gram": kd.kip_distill(
        data.x_train,
        data.y_train,
        phi,
        variant="gram",
        iterations=STEPS,
        evaluate_every=2,
    )
}
try:
    runs["published"] = kd.kip_distill(
        data.x_train,
        data.y_train,
        phi,
        variant="published",
        iterations=4,
        evaluate_every=1,
    )
except kd.BackendUnavailable as error:
    print("the published variant was left out:", error)

for name, run in runs.items():
    iterations, seconds = len(run.losses), float(run.curve["seconds"][-1])
    of_all = run.setup_seconds + seconds / iterations * PUBLISHED_STEPS
    print(
        f"{name:10} {iterations} steps in {seconds:.2f} s; test accuracy after them "
        f"{run.last.distilled.verify((run.last.distilled.fit(), None), test=data).distilled_accuracy:.4f}; "
        f"{PUBLISHED_STEPS} steps would take about {of_all:,.0f} s (extrapolated)"
    )

# %%
# Accuracy against time
# ---------------------
# The accuracy is that on the samples that are held out from training.
# The dotted lines are extrapolated: they say when a run of KIP would end, not how accurate it would be.

closed = runs["gram"].closed_form
figure, axis = plt.subplots(figsize=(7, 3.4), layout="constrained")
axis.semilogx(
    closed.seconds, closed.val_accuracy, "*", markersize=14, label="closed form"
)
for name, run in runs.items():
    seconds = run.setup_seconds + run.curve["seconds"]
    line = axis.semilogx(seconds, run.curve["val_accuracy"], ".-", label=f"KIP, {name}")
    end = run.setup_seconds + run.curve["seconds"][-1] / len(run.losses) * PUBLISHED_STEPS
    axis.axvline(end, color=line[0].get_color(), linestyle=":")
axis.set(
    xlabel="seconds (dotted: end of 30,000 steps, extrapolated)",
    ylabel="accuracy, held-out samples",
)
axis.legend()
plt.show()

# %%
# The loss of KIP is the error of the model that its points train to, measured on the training samples.
# The closed form reaches the error of the original model at once.

print(f"loss for each training sample: closed form {closed.train_loss:.4f}")
for name, run in runs.items():
    print(f"{'':31}KIP, {name}, after {len(run.losses)} steps {run.last.train_loss:.4f}")

assert all(closed.train_loss < run.last.train_loss for run in runs.values())
