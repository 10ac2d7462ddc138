"""PyTorch: ridge solves with gradients, feature maps as modules, distilled points as a data set.

``ridge_solve`` and ``ridge_path`` are custom operators (``torch.library``): torch.compile takes them as they are.
Tensors on the CPU go to the compiled backend without a copy, others to the backend of their device.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from krrdistill.backends import Backend, HadamardWeight, get_backend
from krrdistill.backends.base import matrix_of, weight_arrays
from krrdistill.backends.hadamard import structured_product, sylvester_factors
from krrdistill.backends.operators import Operator
from krrdistill.common.arrays import is_on_host, like, to_host
from krrdistill.errors import BackendUnavailable, DataError, NotPositiveDefinite
from krrdistill.maps import FeatureMap

try:
    import torch
    from torch import Tensor
except ImportError as unusable:
    raise BackendUnavailable(f"krrdistill.interop.torch needs PyTorch ({unusable}): pip install torch") from unusable

__all__ = ["FeatureModule", "ridge_path", "ridge_solve"]


# Ridge


def ridge_solve(gram: Tensor, cross: Tensor, lambda_: Tensor | float) -> Tensor:
    """W = C (G + lambda I)^-1, differentiable in all three, any number of times, in reverse mode.

    With S = dL/dW and T = S (G + lambda I)^-1: dL/dC = T, dL/dG = -(W^T T + T^T W) / 2, dL/dlambda = -<W, T>.
    Arithmetic is float64, the result has the type of ``gram``.

    Parameters
    ----------
    gram : tensor of shape (p, p)
        G, float32 or float64; its symmetric part is used.
    cross : tensor of shape (k, p)
        C, of the type and on the device of ``gram``.
    lambda_ : number, or tensor with one element

    Raises
    ------
    NotPositiveDefinite
        If G + lambda I is not positive definite.
    DataError, TypeError
        For shapes that do not fit, for other types and for tensors on several devices.
    """
    lambdas = _check("ridge_solve", gram, cross, lambda_)
    if lambdas.numel() != 1:
        raise DataError(f"ridge_solve: lambda_ must be one number, got {lambdas.numel()}; ridge_path takes several")
    return _solve(_symmetric(gram), cross[None], lambdas.reshape(1), True)[0]


def ridge_path(gram: Tensor, cross: Tensor, lambdas: Any) -> Tensor:
    """W_l = C (G + lambda_l I)^-1 for every lambda, shape (L, k, p), from one factorisation; differentiable in all.

    Where G + lambda_l I is not positive definite W_l is NaN and takes part in no gradient. Derivatives are those of
    ``ridge_solve``, by one Cholesky factorisation per lambda. Arguments and errors as there, ``lambdas`` (L,).
    """
    grid = _check("ridge_path", gram, cross, lambdas)
    if grid.ndim != 1 or grid.numel() == 0:
        raise DataError(f"ridge_path: lambdas must have shape (L,), L >= 1, got {tuple(grid.shape)}")
    return _path(_symmetric(gram), cross, grid)


@torch.library.custom_op(
    "krrdistill::ridge_solve",
    mutates_args=(),
    schema="(Tensor gram, Tensor cross, Tensor lambdas, bool strict) -> Tensor",
)
def _solve(gram: Tensor, cross: Tensor, lambdas: Tensor, strict: bool) -> Tensor:
    """cross[l] (gram + lambdas[l] I)^-1, shape (L, k, p); unless strict, zero where there is no such matrix."""
    solver = get_backend(data=gram)
    system, identity = gram.detach().double(), torch.eye(len(gram), dtype=torch.float64, device=gram.device)
    out = torch.zeros(cross.shape, dtype=gram.dtype, device=gram.device)
    for index, value in enumerate(lambdas.detach().double()):
        shifted, columns = system + value * identity, cross[index].detach().double().T
        try:
            out[index] = _tensor(solver.solve_spd(_for(solver, shifted), _for(solver, columns)), gram).T
        except NotPositiveDefinite:
            if strict:
                raise
    return out


@_solve.register_fake
def _(gram: Tensor, cross: Tensor, lambdas: Tensor, strict: bool) -> Tensor:
    return torch.empty(cross.shape, dtype=gram.dtype, device=gram.device)


@torch.library.custom_op(
    "krrdistill::ridge_path", mutates_args=(), schema="(Tensor gram, Tensor cross, Tensor lambdas) -> Tensor"
)
def _path(gram: Tensor, cross: Tensor, lambdas: Tensor) -> Tensor:
    """cross (gram + lambdas[l] I)^-1, shape (L, k, p), NaN where there is no such matrix."""
    solver = get_backend(data=gram)
    arrays = (_for(solver, tensor.detach().double().contiguous()) for tensor in (gram, cross, lambdas))
    return _tensor(solver.ridge_path(*arrays, rounding=0.0).weights, gram)


@_path.register_fake
def _(gram: Tensor, cross: Tensor, lambdas: Tensor) -> Tensor:
    return torch.empty((len(lambdas), *cross.shape), dtype=gram.dtype, device=gram.device)


def _keep_solve(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    gram, _, lambdas, ctx.strict = inputs
    ctx.save_for_backward(gram, lambdas, output)


def _solve_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    gram, lambdas, W = ctx.saved_tensors
    T = _solve(gram, gradient, lambdas, ctx.strict)
    return *_gradients(W, T), None


def _keep_path(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    gram, _, lambdas = inputs
    ctx.save_for_backward(gram, lambdas, output)


def _path_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
    gram, lambdas, weights = ctx.saved_tensors
    absent = torch.isnan(weights)
    T = _solve(gram, torch.where(absent, 0.0, gradient), lambdas, False)
    of_gram, of_cross, of_lambdas = _gradients(torch.where(absent, 0.0, weights), T)
    return of_gram, of_cross.sum(0), of_lambdas


def _gradients(W: Tensor, T: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Those of G (``_symmetric`` takes its symmetric part), of C for every lambda, and of lambda; W and T (L, k, p)."""
    return -(W.flatten(0, 1).T @ T.flatten(0, 1)), T, -(W * T).sum((1, 2))


_solve.register_autograd(_solve_backward, setup_context=_keep_solve)
_path.register_autograd(_path_backward, setup_context=_keep_path)


def _check(where: str, gram: Any, cross: Any, lambdas: Any) -> Tensor:
    """``lambdas`` as a tensor of the kind of ``gram``, where the arguments fit together."""
    for name, tensor in (("gram", gram), ("cross", cross)):
        if not isinstance(tensor, Tensor) or tensor.dtype not in (torch.float32, torch.float64):
            found = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(f"{where}: {name} must be a float32 or float64 tensor, got {found}")
        if tensor.layout != torch.strided:
            raise TypeError(f"{where}: {name} must be dense, got {tensor.layout}; pass {name}.to_dense()")
    if cross.dtype != gram.dtype or cross.device != gram.device:
        found = f"{gram.dtype} on {gram.device} and {cross.dtype} on {cross.device}"
        raise TypeError(f"{where}: gram and cross must be of one type on one device, got {found}")
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or cross.ndim != 2 or cross.shape[1] != gram.shape[0]:
        found = f"{tuple(gram.shape)} and {tuple(cross.shape)}"
        raise DataError(f"{where}: gram must have shape (p, p) and cross (k, p), got {found}")
    values = torch.as_tensor(lambdas, dtype=gram.dtype, device=gram.device)
    for name, tensor in (("gram", gram), ("cross", cross), ("lambda", values)):
        if torch.autograd.forward_ad.unpack_dual(tensor).tangent is not None:
            raise TypeError(f"{where}: {name} carries a forward tangent, derivatives are reverse-mode only (backward)")
    return values


def _symmetric(gram: Tensor) -> Tensor:
    return (gram + gram.T) / 2


def _for(solver: Backend, tensor: Tensor) -> Any:
    """The tensor as ``solver`` takes it: a NumPy view of host memory, or itself."""
    return to_host(solver.name, "tensor", tensor) if is_on_host(tensor) else tensor


def _tensor(array: Any, kind: Tensor) -> Tensor:
    """A result as a tensor of the type and on the device of ``kind``."""
    found: Tensor = like(array, kind).to(kind.dtype)
    return found


# Maps and points


class FeatureModule(torch.nn.Module):
    """phi as a module: raw inputs ``(n, *shape)`` -> (n, p), with the weights of a map.

    Weights are buffers: ``to`` moves and casts them, ``state_dict`` holds them, gradients go to the inputs only.

    Parameters
    ----------
    feature_map : FeatureMap
        For example ``DistilledDataset.feature_map``.
    dtype : torch.dtype
        Of weights and arithmetic: a floating-point type.

    Raises
    ------
    TypeError
        For anything else; for convolutions and maps that are functions, which have no weight matrix.
    """

    def __init__(self, feature_map: FeatureMap, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        if not isinstance(feature_map, FeatureMap):
            advice = "; pass distilled.feature_map" if hasattr(feature_map, "feature_map") else ""
            raise TypeError(f"FeatureModule: feature_map must be a map, got {type(feature_map).__name__}{advice}")
        if not dtype.is_floating_point:
            raise TypeError(f"FeatureModule: dtype must be a floating-point type, got {dtype}")
        self.input_dim, self.output_dim = feature_map.input_dim, feature_map.output_dim
        self._activations = [(layer.activation, layer.parameter) for layer in feature_map.layers]
        stage = None if feature_map.scale is None else feature_map.preprocessing
        arrays: dict[str, Any] = {
            "input_origin": None if stage is None else stage.origin,
            "input_unit": None if stage is None else stage.unit,
        }
        for number, layer in enumerate(feature_map.layers):
            if isinstance(layer.weight, Operator):
                found = type(layer.weight).__name__
                raise TypeError(f"FeatureModule: layer {number + 1} is a {found}, which has no weight matrix")
            parts = weight_arrays(matrix_of(layer))
            if isinstance(layer.weight, HadamardWeight):
                left, right = sylvester_factors(layer.weight.signs.shape[2])
                parts = {**parts, "left": left, "right": right}
            arrays |= {f"{name}_{number}": part for name, part in parts.items()} | {f"bias_{number}": layer.bias}
        self.register_buffer("_kind", torch.empty(0, dtype=dtype), persistent=False)  # what ``to`` asked for
        for name, array in arrays.items():
            self.register_buffer(name, None if array is None else torch.tensor(np.asarray(array), dtype=dtype))

    def forward(self, X: Tensor) -> Tensor:
        """phi(X), shape (n, p), in the precision of the weights."""
        if X.ndim < 2 or math.prod(X.shape[1:]) != self.input_dim:
            raise DataError(f"FeatureModule: X must hold rows of {self.input_dim} entries, got shape {tuple(X.shape)}")
        buffers = self._buffers
        H = X.flatten(1).to(self._kind.dtype)
        origin, unit = buffers["input_origin"], buffers["input_unit"]
        if origin is not None and unit is not None:
            H = (H - origin) / unit
        for number, (activation, parameter) in enumerate(self._activations):
            weight, bias = buffers.get(f"weight_{number}"), buffers[f"bias_{number}"]
            H = self._structured(number, H) if weight is None else H @ weight.T
            H = H if bias is None else H + bias
            if activation == "leaky_relu":
                H = torch.nn.functional.leaky_relu(H, parameter)
            elif activation == "cosine":
                H = parameter * torch.cos(H)
        return H

    def _structured(self, number: int, H: Tensor) -> Tensor:
        signs, scale, left, right = (self._buffers[f"{name}_{number}"] for name in ("signs", "scale", "left", "right"))
        product: Tensor = structured_product(torch, H, signs / math.sqrt(signs.shape[2]), scale, left, right)
        return product

    def extra_repr(self) -> str:
        """The sizes, for ``print``."""
        return (
            f"{self.input_dim} -> {self.output_dim}, {', '.join(name for name, _ in self._activations) or 'identity'}"
        )
