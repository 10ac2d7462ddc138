"""KIP's loss as published, by automatic differentiation in PyTorch through the n training features.

||Y_S (K_SS + lambda_s I)^-1 K_SB - Y_B||^2 with Y_S = Y pinv((K_SS + lambda_s I)^-1 K_SX), gradients through the labels
(Chen, Huang, Weng, NeurIPS 2024, after Nguyen, Chen, Lee, ICLR 2021).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from krrdistill.errors import BackendUnavailable
from krrdistill.maps import FeatureMap

from .gram import LAMBDA_S

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PublishedObjective", "require_torch"]

Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]


def require_torch() -> Any:
    """The module ``torch``. Raises BackendUnavailable, with the command that installs it."""
    try:
        import torch
    except ImportError as error:
        raise BackendUnavailable(
            f"kip: variant 'published' needs PyTorch ({error}): pip install torch; variant 'gram' does without"
        ) from error
    return torch


class PublishedObjective:
    """The loss over all training points or over a batch.

    Parameters
    ----------
    network : the feature map on preprocessed inputs
    features : array of shape (n, p), those of the training points; its dtype is that of all arithmetic
    labels : classes of shape (n,)
    n_classes : int
    """

    def __init__(self, network: FeatureMap, features: Array, labels: IntArray, n_classes: int) -> None:
        self._torch = torch = require_torch()
        from krrdistill.interop.torch import FeatureModule

        self._features: Tensor = torch.from_numpy(features)
        targets = torch.nn.functional.one_hot(torch.from_numpy(labels), n_classes)
        self._targets: Tensor = targets.T.to(self._features.dtype).contiguous()
        self._phi = FeatureModule(network, dtype=self._features.dtype)

    def loss_and_gradient(self, X: Array, rows: IntArray | None) -> tuple[float, Array]:
        """(loss, its gradient with respect to X), X (m, d); ``rows`` are the batch, None for all training points.

        NaN and no change where a decomposition fails.
        """
        torch = self._torch
        inputs = torch.from_numpy(X).clone().requires_grad_()
        try:
            M, labels = self._solve(inputs)
            targets = self._targets
            if rows is not None:
                picked = torch.from_numpy(rows)
                M, targets = M[:, picked], targets[:, picked]
            loss = ((labels @ M - targets) ** 2).sum()
            loss.backward()
        except torch.linalg.LinAlgError:
            return float("nan"), np.zeros_like(X)
        gradient: Array = inputs.grad.numpy()
        return float(loss.detach()), gradient

    def labels(self, X: Array, F: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Y_S (m, k), the labels for inputs X (m, d), in the precision of the steps; NaN for none."""
        torch = self._torch
        try:
            with torch.no_grad():
                solved = self._solve(torch.from_numpy(X))[1]
        except torch.linalg.LinAlgError:
            return np.full((len(X), len(self._targets)), np.nan)
        return np.asarray(solved.T.numpy().astype(np.float64))

    def _solve(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """((K_SS + lambda_s I)^-1 K_SX of shape (m, n), Y_S^T of shape (k, m))."""
        torch = self._torch
        F = self._phi(X)
        kernel = F @ F.T
        m = len(kernel)
        regularised = kernel + LAMBDA_S * kernel.trace() / m * torch.eye(m, dtype=kernel.dtype)
        M = torch.linalg.solve(regularised, F @ self._features.T)
        return M, self._targets @ torch.linalg.pinv(M)
