"""Random fully connected networks with LeakyReLU (the paper's item 5.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from krrdistill.backends.base import Activation, Layer
from krrdistill.common.arrays import check_count, check_number, check_seed
from krrdistill.common.random import Stream
from krrdistill.data import Preprocessing

from .base import FeatureMap
from .weights import gaussian_weight

__all__ = ["FCNN", "gaussian_layers"]


class FCNN(FeatureMap):
    """phi(x) = act(W_L … act(W_1 x)),  act(t) = t or slope t (t <= 0),  W_l ~ N(0, 1/fan_in), no bias.

    If the widths satisfy d >= d_1 >= ... >= d_L, the weights have full row rank almost surely, and every feature
    vector has an exact preimage (the paper's item 5.2). For other widths preimages are approximate (``reach``).

    Parameters
    ----------
    input_dim : int
        d.
    widths : sequence of int, optional
        d_1 ... d_L, by default ``hidden_layers`` times d.
    hidden_layers : int
        L, the number of layers, if ``widths`` is not given.
    slope : float
        Slope of LeakyReLU for t <= 0, 0.1 as published.
    seed : int
        Seed of the weights.
    preprocessing : Preprocessing, optional
        Preprocessing of raw inputs, before the layers; by default none.
    """

    kernel: ClassVar[str] = "FCNN"
    optional_in_spec: ClassVar[tuple[str, ...]] = ("hidden_layers",)  # a description has widths

    def __init__(
        self,
        input_dim: int,
        widths: Sequence[int] | None = None,
        *,
        hidden_layers: int = 1,
        slope: float = 0.1,
        seed: int = 0,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        d = check_count("FCNN", "input_dim", input_dim)
        check_number("FCNN", "slope", slope, positive=True)
        check_seed("FCNN", seed)
        if widths is None:
            widths = [d] * check_count("FCNN", "hidden_layers", hidden_layers)
        layers = gaussian_layers("FCNN", d, widths, "leaky_relu", float(slope), seed)
        parameters = {"widths": [int(w) for w in widths], "slope": float(slope), "seed": int(seed)}
        super().__init__(d, layers, preprocessing=preprocessing, parameters=parameters)


def gaussian_layers(
    where: str, input_dim: int, widths: Sequence[int], activation: Activation, parameter: float, seed: int
) -> tuple[Layer, ...]:
    """act(W_l h) for each of the widths, W_l ~ N(0, 1/fan_in). Raises ValueError, TypeError for wrong widths."""
    if isinstance(widths, str) or not isinstance(widths, (Sequence, np.ndarray)):
        remedy = f"; pass [{widths}]" if isinstance(widths, int) else ""
        raise TypeError(f"{where}: widths must be a sequence of integers, got {widths!r}{remedy}")
    if len(widths) == 0:
        raise ValueError(f"{where}: widths must name at least one layer")
    layers = []
    fan_in = input_dim
    for number, width in enumerate(widths):
        outputs = check_count(where, f"widths[{number}]", width)
        weight = gaussian_weight(seed, Stream.WEIGHTS + number, outputs, fan_in, precision=fan_in)
        layers.append(Layer(weight, None, activation, parameter))
        fan_in = outputs
    return tuple(layers)
