"""
Your own feature map
====================

The package has several feature maps, but any function that turns rows of inputs into rows of features will do.
``UserMap`` makes a feature map of it.

What can be promised depends on the function.

* With an inverse the distilled inputs are exact.
* Without an inverse but with gradients (a torch module) they are found by iteration, and are exact only if there are
  enough points.
* With neither, real inputs are kept and only labels are learned for them.

This page tries all three.
"""

import warnings

import matplotlib.pyplot as plt
import numpy as np

import krrdistill as kd

try:
    import torch
except ImportError:
    torch = None

# %%
# The data are the digits of scikit-learn, whatever else there is: the iteration takes minutes on larger images.

data = kd.load_dataset("digits")
X, y, scaling, d = data.x_train, data.y_train, kd.standardize(data), data.input_dim
print(data)

# %%
# With an inverse
# ---------------
# The signed square root makes large entries smaller.
# Its inverse is the signed square.
# The function gets the standardised pixels, tile by tile, and must treat every row alone.


def root(U):
    """Signed square root of every entry."""
    return np.sign(U) * np.sqrt(np.abs(U))


def square(F):
    """The inverse of root."""
    return np.sign(F) * F**2


phi = kd.UserMap(root, d, inverse=square, preprocessing=scaling)
result = kd.distill(X, y, phi, points_per_class=1)
exact = result.distilled.verify(result.model, test=data)
print(f"what inputs can be promised: {phi.reach}")
print(
    f"relative error of the weights: {exact.weight_relative_error:.1e}, agreement {exact.prediction_agreement:.2%}"
)

assert exact.weight_relative_error < 1e-6

# %%
# Neither inverse nor gradients
# -----------------------------
# Each pixel is joined by its square.
# No input has the features that the closed form asks for, since the second half of the features is determined by the
# first.
# ``labels_only`` keeps real inputs and learns labels that are not 0 or 1.
# This is exact once there are at least as many points as features, and here there are fewer.


def with_squares(U):
    """The entries and their squares."""
    return np.concatenate([U, U**2], axis=1)


with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    phi = kd.UserMap(with_squares, d, preprocessing=scaling)
    result = kd.distill(X, y, phi, points_per_class=5, labels_only=True)
labels = result.distilled.verify(result.model, test=data)
print(f"what inputs can be promised: {phi.reach}")
print(f"{phi.output_dim} features, {len(result.distilled.Y)} points")
print(
    f"relative error of the weights: {labels.weight_relative_error:.1e}, agreement {labels.prediction_agreement:.2%}"
)
print(*(str(each.message) for each in said), sep="\n")

# %%
# The library says so itself: the warning above is printed by every such call.
#
# A torch module
# --------------
# The layer below has more outputs than inputs, and a nonlinearity.
# Its inputs are *approximate*: an iteration moves them until labels exist that give the right weights.
#
# How many points does it take?
# Each of ``m`` points has ``d`` entries and a label of ``k`` numbers to choose, and the weights are ``k p`` numbers
# (``p`` is the number of features).
# So the error can vanish once ``m (d + k)`` is well above ``k p``.
# The iteration may still end short of it: the certificate decides, not the count.

p, counts, errors = d + d // 4, (1, 2, 3, 4), []
if torch is None:
    print("PyTorch is not installed, so this part was left out: pip install torch")
else:
    torch.manual_seed(0)
    layer = torch.nn.Sequential(torch.nn.Linear(d, p), torch.nn.Tanh()).double().eval()
    phi = kd.UserMap(layer, d, name="a layer with tanh", preprocessing=scaling)
    print(f"what inputs can be promised: {phi.reach}; {p} features of {d} inputs")
    statistics = kd.RidgeStatistics(phi, data.n_classes, precision="float64")
    statistics.update(X[500:], y[500:])
    model = kd.fit_model(statistics, validation=(X[:500], y[:500]))
    for count in counts:
        with warnings.catch_warnings():
            # The errors are printed and drawn below.
            warnings.simplefilter("ignore", kd.NotExactWarning)
            points = kd.distill_model(model, points_per_class=count)
        errors.append(points.verify(model).weight_relative_error)
        print(f"{count} per class: relative error of the weights {errors[-1]:.1e}")

# %%
if errors:
    figure, axis = plt.subplots(figsize=(5, 3.2), layout="constrained")
    axis.semilogy(counts, errors, "o-")
    axis.axhline(1e-6, color="grey", linestyle="--")
    axis.text(
        counts[-1], 1.5e-6, "called exact below", ha="right", va="bottom", color="grey"
    )
    axis.set(
        xlabel="points per class", ylabel="relative error of the weights", xticks=counts
    )
    plt.show()

    assert errors[0] > 1e-6 > errors[-1]

# %%
# A file does not hold a function of yours, only its name and what it makes of some fixed inputs.
# Nothing is imported because a file says so.
# To read such a file, pass the map again: ``DistilledDataset.load(path, feature_map=phi)``.
# A different function is refused.
