"""PyTorch modules as functions of NumPy arrays, with their derivatives."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from krrdistill.backends import Linearization

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["TorchFunction", "is_torch_module"]

FloatArray = npt.NDArray[np.float64]


def is_torch_module(candidate: Any) -> bool:
    """Whether this is a ``torch.nn.Module``; does not import torch, which whoever made one has done."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(candidate, torch.nn.Module)


class TorchFunction:
    """A module (n, d) -> (n, p) on arrays. It computes in the dtype and on the device of its first parameter."""

    def __init__(self, module: Any) -> None:
        import torch

        self._torch = torch
        self._module = module
        weights = [tensor for tensor in (*module.parameters(), *module.buffers()) if tensor.is_floating_point()]
        self._like = weights[0] if weights else torch.empty(0, dtype=torch.float64)

    def _tensor(self, X: npt.NDArray[Any]) -> Tensor:
        array = np.array(X, dtype=np.float64)
        return self._torch.from_numpy(array).to(device=self._like.device, dtype=self._like.dtype)

    def __call__(self, X: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The module's output for X (n, d)."""
        with self._torch.no_grad():
            return _array(self._module(self._tensor(X)))

    def inverse(self, F: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The module's own ``inverse`` for F (m, p)."""
        with self._torch.no_grad():
            return _array(self._module.inverse(self._tensor(F)))

    def linearize(self, X: FloatArray) -> Linearization:
        """Value and Jacobian products at X (m, d), by automatic differentiation.

        U -> U J is linear in U, so its own derivative is V -> V J^T: reverse mode, which more modules have, does both.
        """
        differentiate: Any = self._torch.autograd.grad
        point = self._tensor(X).requires_grad_()
        value = self._module(point)
        weights = self._torch.zeros_like(value, requires_grad=True)
        weighted = differentiate(value, point, weights, create_graph=True)[0]

        def forward(V: FloatArray) -> FloatArray:
            return _float64(differentiate(weighted, weights, self._tensor(V), retain_graph=True)[0])

        def backward(U: FloatArray) -> FloatArray:
            return _float64(differentiate(value, point, self._tensor(U), retain_graph=True)[0])

        return Linearization(_float64(value), forward, backward)


def _array(tensor: Any) -> npt.NDArray[Any]:
    """A tensor as an array; bfloat16, which NumPy does not have, becomes float32, which holds it."""
    found = tensor.detach().cpu()
    return np.asarray((found.float() if str(found.dtype) == "torch.bfloat16" else found).numpy())


def _float64(tensor: Any) -> FloatArray:
    return np.asarray(_array(tensor), dtype=np.float64)
