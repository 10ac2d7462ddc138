"""
Realism and its price
=====================

Many different sets of points train to the same model.
The default ones look like noise.
``realism`` asks for the exact set that is nearest to real images (1), to noise (0), or to a blend of both.
However the points look, the model that they train to is the same.

There are two prices.
Rounding errors weigh more when one trains on the points, and the points show the images that they started from.
"""

import os

import matplotlib.pyplot as plt
import numpy as np

import krrdistill as kd
from krrdistill.apps import privacy

data = kd.load_dataset("mnist" if os.environ.get("KRRDISTILL_DATA") else "digits")
phi = kd.make_map("identity", data, kd.standardize(data))
white = float(data.x_train.max())
print(data)

# %%
# How near is near
# ----------------
# The *peak signal-to-noise ratio* (PSNR) measures how near two images are.
# With pixels between 0 and 1 it is -10 log10 of the mean squared difference, in decibels.
# From about 30 dB on it is hard to see a difference; near 0 dB nothing is left of the image.
#
# The *condition number* says by how much rounding errors can grow when one trains on the points.
#
# ``None`` is the default, without any real image.


def psnr(points, real):
    """In decibels, of images whose white is ``white``."""
    return -10 * np.log10(np.mean(((points - real.astype(float)) / white) ** 2))


POINTS = 4 if data.name == "digits" else 10  # per class
REALISM = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
images, psnrs, certificates, near = {}, {}, {}, {}
for realism in (None, *REALISM):
    result = kd.distill(
        data.x_train, data.y_train, phi, points_per_class=POINTS, realism=realism
    )
    images[realism] = result.distilled.samples
    near[realism] = privacy.nearest_neighbours(result.distilled, data, limit=50)
    certificates[realism] = certificate = result.distilled.verify(result.model, test=data)
    print(f"realism {realism}: condition {certificate.condition:.1e}, ", end="")
    print(f"error of the weights {certificate.weight_relative_error:.1e}", end="")
    if realism is not None:
        real = data.x_train[result.start_rows]
        psnrs[realism] = psnr(images[realism], real)
        print(f", PSNR {psnrs[realism]:.1f} dB", end="")
    print()

    assert certificate.weight_relative_error < 1e-6
    assert certificate.prediction_agreement == 1.0

# %%
# What it looks like
# ------------------
# The first row has the real images, each other row the points for one value of ``realism``.
# Pixels outside of black and white are clipped for the picture.

rows = {"real": real, **{f"{realism:g}": images[realism] for realism in REALISM}}
figure, axes = plt.subplots(
    len(rows),
    10,
    figsize=(7, 5.2),
    layout="compressed",
    subplot_kw={"xticks": [], "yticks": []},
)
for row, (name, shown) in zip(axes, rows.items(), strict=True):
    row[0].set_ylabel(name, rotation=0, ha="right", va="center")
    for axis, image in zip(row, shown, strict=False):
        axis.imshow(image, cmap="gray", vmin=0, vmax=white)
plt.show()

# %%
# The prices
# ----------
# The default set has the smallest condition number that its labels allow.
# Sets that start from images have larger ones, which depend on the images and follow no rule.
# In float64 this costs nothing that one would notice.
# For points that are stored in fewer bits it decides how exact they are (:doc:`/measured/storage`).
#
# On the right: the distance of each point to the nearest training image, as the root mean square difference of a pixel.
# The dashed line is the median of the same distance for test images, which training never saw.
# Points far below it are copies of training images with small changes: whoever gets the file sees them.

figure, axes = plt.subplots(1, 3, figsize=(10, 3), layout="constrained")
axes[0].plot(REALISM, list(psnrs.values()), "o-")
axes[0].set(xlabel="realism", ylabel="PSNR (dB)")
axes[1].semilogy(REALISM, [certificates[realism].condition for realism in REALISM], "o-")
axes[1].axhline(certificates[None].condition, color="grey", linestyle="--")
axes[1].set(xlabel="realism (dashed: default)", ylabel="condition number")
axes[2].boxplot(
    [near[realism].distances for realism in REALISM],
    tick_labels=[f"{r:g}" for r in REALISM],
)
axes[2].axhline(np.median(near[1.0].baseline), color="grey", linestyle="--")
axes[2].set(xlabel="realism", ylabel="distance to the training set")
plt.show()

assert psnrs[1.0] > 30
assert certificates[None].condition < min(
    certificates[realism].condition for realism in REALISM
)
assert np.median(near[1.0].distances) < np.median(near[1.0].baseline)

# %%
# More points per class make the exact set nearer to real images, because only as many directions as there are classes
# have to change.
# :doc:`/measured/realism` has colour images and other feature maps, :doc:`/explanation/nearest` the mathematics.
# :ref:`sphx_glr_gallery_plot_12_privacy.py` looks at what a file gives away in any case.
