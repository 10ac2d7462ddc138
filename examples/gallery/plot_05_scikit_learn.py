"""
scikit-learn
============

``RidgeDistiller`` is a scikit-learn classifier.
It fits a ridge model on features of the inputs, computes a few points that train to the same model, and predicts with
the model that it trained on those points.
So it can be cross-validated, put into a pipeline, and used to shrink a training set.
"""

import os

import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import krrdistill as kd
from krrdistill.interop.sklearn import RidgeDistiller

data = kd.load_dataset("mnist" if os.environ.get("KRRDISTILL_DATA") else "digits")
X, y = data.x_train.reshape(len(data.x_train), -1)[:6000], data.y_train[:6000]
X_test, y_test = data.x_test.reshape(len(data.x_test), -1), data.y_test
print(data, f"the first {len(X)} training samples", sep="\n")

# %%
# Cross-validation
# ----------------
# ``kernel`` names the feature map.
# Each fold fits, distils to one point per class, and is judged on samples that it has not seen.

folds = StratifiedKFold(5, shuffle=True, random_state=0)
scores = {
    f"RidgeDistiller\n{kernel}": cross_val_score(RidgeDistiller(kernel), X, y, cv=folds)
    for kernel in ("identity", "random_fourier", "FCNN")
}
scores["RidgeClassifier"] = cross_val_score(
    make_pipeline(StandardScaler(), RidgeClassifier()), X, y, cv=folds
)
for name, values in scores.items():
    print(f"{name.replace(chr(10), ' '):30} {values.mean():.4f} +- {values.std():.4f}")

figure, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
axis.boxplot(list(scores.values()), tick_labels=list(scores))
axis.set(ylabel="accuracy, five folds")
plt.show()

# %%
# What is left after the fit
# --------------------------
# ``coef_original_`` is the model of all samples, ``coef_`` the one that was trained on the points.
# ``certificate_`` compares them.

model = RidgeDistiller("FCNN").fit(X, y)
print(
    f"{len(X)} samples -> {len(model.X_distilled_)} points, test accuracy {model.score(X_test, y_test):.4f}"
)
print(f"relative error of the weights: {model.certificate_.weight_relative_error:.1e}")

assert model.certificate_.weight_relative_error < 1e-6

# %%
# In a pipeline
# -------------
# The scaler comes first here, so the distiller is told not to scale again.

pipeline = make_pipeline(StandardScaler(), RidgeDistiller("FCNN", preprocessing="none"))
pipeline.fit(X, y)
print(f"test accuracy of the pipeline: {pipeline.score(X_test, y_test):.4f}")

# %%
# A smaller training set
# ----------------------
# ``fit_resample`` is the method by which the package imbalanced-learn returns a new training set.
# Here the new training set has one row per class.
# Another classifier can be trained on it: least squares on one-hot labels (1 for the class, 0 elsewhere) gives the same
# predictions.

distiller = RidgeDistiller("identity", preprocessing="none", lam=100.0)
scaler = StandardScaler().fit(X)
X_small, y_small = distiller.fit_resample(scaler.transform(X), y)
print("new training set:", X_small.shape, "labels:", y_small)

one_hot = (y_small[:, None] == distiller.classes_).astype(float)
W = np.linalg.pinv(X_small, rcond=1e-14) @ one_hot
predicted = distiller.classes_[(scaler.transform(X_test) @ W).argmax(axis=1)]
print(f"least squares on the new set: test accuracy {(predicted == y_test).mean():.4f}")
print(
    f"the distiller itself:         test accuracy {distiller.score(scaler.transform(X_test), y_test):.4f}"
)

assert (predicted == distiller.predict(scaler.transform(X_test))).mean() > 0.999
