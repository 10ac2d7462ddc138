"""
New classes without forgetting
==============================

A network that learns one task after another forgets the earlier ones.
Here the tasks come one by one, each with classes of its own, and its samples are thrown away afterwards.
Nothing is forgotten: the sums of a task are added to those of the tasks before it.
After the last task the model is that of training on everything at once.
"""

import os

import matplotlib.pyplot as plt
import numpy as np

import krrdistill as kd

usual = "mnist" if os.environ.get("KRRDISTILL_DATA") else "digits"
data = kd.load_dataset(os.environ.get("DATASET", usual))
phi = kd.make_map(os.environ.get("KERNEL", "identity"), data, kd.standardize(data))
print(data)

# %%
# The tasks
# ---------
# Labels are names here, so that a class is recognised wherever it comes from.

names = np.array(data.class_names)
y_train, y_test = names[data.y_train], names[data.y_test]
tasks = np.array_split(names, 5 if len(names) == 10 else 10)
print(len(tasks), "tasks; the first has the classes", ", ".join(tasks[0]))

# %%
# One task after the other
# ------------------------
# ``total + task`` puts the new classes behind the ones that are known.
# The ridge parameter :math:`\lambda` is chosen by generalised cross-validation (``gcv``), which needs the sums alone.
# No sample has to be kept.
#
# For comparison: a model of the latest task alone, which has forgotten all others.


total, merged, latest = None, [], []
for number, classes in enumerate(tasks):
    rows, seen = (
        np.isin(y_train, classes),
        np.isin(y_test, np.concatenate(tasks[: number + 1])),
    )
    task = kd.RidgeStatistics(
        phi, classes.tolist(), precision="float64", shard=f"task {number}"
    )
    task.update(data.x_train[rows], y_train[rows])
    total = task if total is None else total + task
    model = kd.fit_model(total, selection="gcv")
    merged.append(model.score(data.x_test[seen], y_test[seen]))
    alone = kd.fit_model(task, selection="gcv")
    latest.append(float((alone.predict(data.x_test[seen]) == y_test[seen]).mean()))
    print(
        f"task {number + 1:2}: {total.k:3} classes, {total.n:6} samples, test accuracy so far {merged[-1]:.4f}"
    )

figure, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
steps = np.arange(1, len(tasks) + 1)
axis.plot(steps, merged, "o-", label="merged statistics")
axis.plot(steps, latest, "s--", label="latest task alone")
axis.set(
    xlabel="tasks so far",
    ylabel="test accuracy, classes so far",
    xticks=steps,
    ylim=(0, 1.05),
)
axis.legend()
plt.show()

# %%
# The accuracy falls a little with each task, since there are more classes to confuse.
# It is the accuracy of joint training all the same.
#
# Against joint training
# ----------------------

joint = kd.RidgeStatistics(phi, names.tolist(), precision="float64").update(
    data.x_train, y_train
)
expected = kd.fit_model(joint, selection="gcv")
order = [model.classes.names.index(name) for name in names]
difference = np.linalg.norm(model.W[order] - expected.W) / np.linalg.norm(expected.W)
print(f"relative difference of the models: {difference:.1e}")
print(f"lambda {model.lambda_:g} and {expected.lambda_:g}")

assert difference <= 1e-9

# %%
# The points
# ----------
# One point per class trains to this model.
# Points can be made after each task, whenever somebody asks for them.

points = kd.distill_model(model, points_per_class=1)
certificate = points.verify(model, test=(data.x_test, y_test))
print(f"{len(points.Y)} points, relative error of the weights {certificate.weight_relative_error:.1e}, "
      f"test accuracy {certificate.distilled_accuracy:.4f}")  # fmt: skip

assert certificate.weight_relative_error < 1e-9
assert certificate.prediction_agreement == 1.0
