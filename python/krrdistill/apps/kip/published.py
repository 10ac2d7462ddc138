"""KIP's loss as published, by automatic differentiation in PyTorch through the n training features.

||Y_S (K_SS + lambda_s I)^-1 K_SB - Y_B||^2 with Y_S = Y pinv((K_SS + lambda_s I)^-1 K_SX), gradients through the labels
(Chen, Huang, Weng, NeurIPS 2024, after Nguyen, Chen, Lee, ICLR 2021).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from krrdistill.maps import FeatureMap

from .gram import LAMBDA_S
from .place import Place, TorchPlace, require_torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PublishedObjective"]

Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]


class PublishedObjective:
    """The loss over all training points or over a batch.

    Parameters
    ----------
    network : the feature map on preprocessed inputs
    features : array of shape (n, p), those of the training points; its dtype is that of all arithmetic
    labels : classes of shape (n,)
    n_classes : int
    place : where all of it lies, the CPU by default
    """

    def __init__(
        self, network: FeatureMap, features: Array, labels: IntArray, n_classes: int, place: Place | None = None
    ) -> None:
        self.place = place = place or TorchPlace()
        self._torch = torch = require_torch("variant 'published'", "variant 'gram' on the CPU does without")
        from krrdistill.interop.torch import FeatureModule

        self._features: Tensor = place.put(features)
        targets = torch.nn.functional.one_hot(place.put(labels), n_classes)
        self._targets: Tensor = targets.T.to(self._features.dtype).contiguous()
        self._phi = FeatureModule(network, dtype=self._features.dtype).to(self._features.device)

    def loss_and_gradient(self, X: Any, rows: Any) -> tuple[float, Any]:
        """(loss, its gradient with respect to X), X (m, d); ``rows`` are the batch, None for all training points.

        All of them tensors of the place. NaN and no change where a decomposition fails.
        """
        torch = self._torch
        inputs = X.detach().clone().requires_grad_()
        try:
            M, labels = self._solve(inputs)
            targets = self._targets
            if rows is not None:
                M, targets = M[:, rows], targets[:, rows]
            loss = ((labels @ M - targets) ** 2).sum()
            loss.backward()
        except torch.linalg.LinAlgError:
            return float("nan"), torch.zeros_like(X)
        return float(loss.detach()), inputs.grad

    def labels(self, X: Array, F: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Y_S (m, k), the labels for host inputs X (m, d), in the precision of the steps; NaN for none."""
        torch = self._torch
        try:
            with torch.no_grad():
                solved = self._solve(self.place.put(X))[1]
        except torch.linalg.LinAlgError:
            return np.full((len(X), len(self._targets)), np.nan)
        return self.place.take(solved.T).astype(np.float64)

    def _solve(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """((K_SS + lambda_s I)^-1 K_SX of shape (m, n), Y_S^T of shape (k, m))."""
        torch = self._torch
        F = self._phi(X)
        kernel = F @ F.T
        m = len(kernel)
        regularised = kernel + LAMBDA_S * kernel.trace() / m * torch.eye(m, dtype=kernel.dtype, device=kernel.device)
        M = torch.linalg.solve(regularised, F @ self._features.T)
        return M, self._targets @ torch.linalg.pinv(M)
