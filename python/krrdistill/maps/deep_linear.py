"""Deep linear networks (Theorem 5.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from krrdistill.common.arrays import check_count, check_seed
from krrdistill.data import Preprocessing

from .base import FeatureMap
from .fcnn import gaussian_layers

__all__ = ["DeepLinear"]


class DeepLinear(FeatureMap):
    """phi(x) = M x,  M = W_L … W_1,  W_l ~ N(0, 1/fan_in), no bias.

    With p > d the features fill the range of M, a subspace of dimension r <= d. The weights of a ridge model lie in
    this subspace, so every number of points m >= k is enough (Theorem 5.3). The construction uses coordinates of the
    subspace.

    Parameters
    ----------
    input_dim : int
        d.
    widths : sequence of int, optional
        d_1 ... d_L, by default one layer of 2 d.
    seed : int
        Seed of the weights.
    preprocessing : Preprocessing, optional
        Preprocessing of raw inputs, before the layers; by default none.
    """

    kernel: ClassVar[str] = "deep_linear"

    def __init__(
        self,
        input_dim: int,
        widths: Sequence[int] | None = None,
        *,
        seed: int = 0,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        d = check_count("DeepLinear", "input_dim", input_dim)
        check_seed("DeepLinear", seed)
        layers = gaussian_layers("DeepLinear", d, [2 * d] if widths is None else widths, "linear", 1.0, seed)
        parameters = {"widths": [layer.weight.shape[0] for layer in layers], "seed": int(seed)}
        super().__init__(d, layers, preprocessing=preprocessing, parameters=parameters)
