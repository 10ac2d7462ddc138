"""Random convolutional networks with LeakyReLU (the paper's item 5.3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import scipy

from krrdistill.backends import Layer, Linearization, Operator
from krrdistill.common.arrays import check_count, check_number, check_seed
from krrdistill.common.random import Stream, normal
from krrdistill.data import Preprocessing
from krrdistill.data.layout import checked_layout
from krrdistill.errors import NotSurjective

from .base import FeatureMap
from .weights import gaussian_weight

__all__ = ["ConvolutionalNetwork"]

AnyArray = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
_TOLERANCE = 1e-14  # of LSQR
_MAX_ITERATIONS = 2000
_REACHED = 1e-9  # relative residual up to which a least squares solution counts as a preimage


class Convolution(Operator):
    """y[i, j] = sum_ab x[stride i + a - padding, stride j + b - padding] K[a, b]: cross-correlation, zeros around.

    Applied as one matrix product per entry (a, b) of the kernel, over all positions at once.

    Parameters
    ----------
    shape_in : (h, w, c)
        Shape of a sample, channels last; rows of a batch are flattened in this order.
    kernel : array of shape (s, s, c, c'), float32
    channels_first : bool
        Whether inputs are flattened with their channels first, (c, h, w).
    """

    def __init__(
        self,
        shape_in: tuple[int, int, int],
        kernel: npt.NDArray[np.float32],
        *,
        stride: int,
        padding: int,
        channels_first: bool = False,
    ) -> None:
        self.shape_in, self.kernel, self.stride, self.padding = shape_in, kernel, stride, padding
        self.channels_first = channels_first
        h, w, _ = shape_in
        size = len(kernel)
        rows, columns = ((n + 2 * padding - size) // stride + 1 for n in (h, w))
        self.shape_out = (rows, columns, kernel.shape[3])
        if min(rows, columns) < 1:
            raise ValueError(f"conv: kernel_size {size} is larger than the {h} x {w} inputs of a layer with padding")
        self._obstacle: str | None = None
        self._checked = False

    @property
    def shape(self) -> tuple[int, int]:
        """(outputs, inputs), flattened."""
        return math.prod(self.shape_out), math.prod(self.shape_in)

    @property
    def obstacle(self) -> str | None:
        """More outputs than inputs, or a random target that least squares does not reach."""
        if not self._checked:
            p, d = self.shape
            if p > d:
                self._obstacle = f"maps {d} inputs to {p} features; an exact preimage needs at most {d} features"
            elif (residual := self._least_squares(normal(0, Stream.PROBE, p)[None])[1]) > _REACHED:
                self._obstacle = f"is not onto: a random target keeps a relative distance of {residual:.2g}"
            self._checked = True  # last: another thread may ask meanwhile
        return self._obstacle

    def apply(self, H: AnyArray) -> AnyArray:
        """The convolution of each row of H (n, h w c), in the precision of H."""
        h, w, c = self.shape_in
        images = np.moveaxis(H.reshape(-1, c, h, w), 1, -1) if self.channels_first else H.reshape(-1, h, w, c)
        x = self._padded(images)
        out = np.zeros((len(x), *self.shape_out), H.dtype)
        for taps, matrix in self._taps(H.dtype):
            out += x[taps] @ matrix
        return out.reshape(len(x), -1)

    def transposed(self, U: AnyArray) -> AnyArray:
        """The adjoint: (n, outputs) -> (n, inputs)."""
        h, w, c = self.shape_in
        u, at = U.reshape(-1, *self.shape_out), self.padding
        x = np.zeros((len(u), h + 2 * at, w + 2 * at, c), U.dtype)
        for taps, matrix in self._taps(U.dtype):
            x[taps] += u @ matrix.T
        inner = x[:, at : at + h, at : at + w]
        return (np.moveaxis(inner, -1, 1) if self.channels_first else inner).reshape(len(u), -1)

    def linearize(self, H: FloatArray) -> Linearization:
        """The convolution is linear."""
        return Linearization(self.apply(H), self.apply, self.transposed)

    def preimage(self, T: FloatArray, near: FloatArray) -> FloatArray:
        """near + the least-norm step to T, by LSQR. Raises NotSurjective where it does not get there."""
        step, residual = self._least_squares(T - self.apply(near))
        if residual > _REACHED:
            raise NotSurjective(f"preimage: a convolution reaches its target up to {residual:.2g} only, relatively")
        return near + step

    def arrays(self) -> dict[str, AnyArray]:
        """The kernel, as (size, size, channels, channels of the output), named for inputs with their channels first."""
        return {"kernel_channels_first" if self.channels_first else "kernel": self.kernel}

    def _least_squares(self, T: FloatArray) -> tuple[FloatArray, float]:
        """(X (m, inputs) of least norm, relative residual), all rows as one system: they share the Krylov space."""
        p, d = self.shape
        m = len(T)
        operator = scipy.sparse.linalg.LinearOperator(
            (m * p, m * d),
            matvec=lambda v: self.apply(v.reshape(m, d)).ravel(),
            rmatvec=lambda u: self.transposed(u.reshape(m, p)).ravel(),
            dtype=np.float64,
        )
        target = T.ravel()
        x = scipy.sparse.linalg.lsqr(
            operator, target, atol=_TOLERANCE, btol=_TOLERANCE, conlim=0.0, iter_lim=_MAX_ITERATIONS
        )[0]
        residual = float(np.linalg.norm(operator.matvec(x) - target)) / (float(np.linalg.norm(target)) or 1.0)
        return x.reshape(m, d), residual

    def _padded(self, x: AnyArray) -> AnyArray:
        around = (self.padding, self.padding)
        return np.pad(x, ((0, 0), around, around, (0, 0))) if self.padding else x

    def _taps(self, dtype: Any) -> list[tuple[tuple[slice, ...], AnyArray]]:
        """For each entry of the kernel: which positions of the padded input it meets, and its (c, c') matrix."""
        (rows, columns, _), step, size = self.shape_out, self.stride, len(self.kernel)
        kernel = self.kernel.astype(dtype)
        return [
            ((slice(None), slice(a, a + step * rows, step), slice(b, b + step * columns, step)), kernel[a, b])
            for a in range(size)
            for b in range(size)
        ]


class ConvolutionalNetwork(FeatureMap):
    """phi(x) = act(K_L * … act(K_1 * x)),  act(t) = t or slope t (t <= 0),  K_l ~ N(0, 1 / (size^2 c)), no bias.

    The map has exact preimages if every convolution is surjective (the paper's item 5.3). This is tested numerically
    when it is needed. Convolutions with more outputs than inputs never are. Random kernels with stride = size and at
    most size^2 c output channels (c input channels) always are.

    Parameters
    ----------
    input_shape : (h, w) or (h, w, c), with layout "NCHW" (c, h, w)
        Shape of a sample.
    channels : sequence of int, optional
        Number of output channels of each layer, by default one layer of 3 c.
    kernel_size, stride, padding : int
        The same for every layer. Inputs are padded with zeros, ``padding`` < ``kernel_size`` at each side.
    slope : float
        Slope of LeakyReLU for t <= 0.
    seed : int
        Seed of the kernels.
    layout : "NHWC" or "NCHW"
        Axis of the channels of the inputs, last or first. Features always have them last.
    preprocessing : Preprocessing, optional
        Preprocessing of raw inputs, before the layers; by default none.
    """

    kernel: ClassVar[str] = "conv"
    takes_shape: ClassVar[bool] = True
    optional_in_spec: ClassVar[tuple[str, ...]] = ("layout",)  # channels are last by default

    def __init__(
        self,
        input_shape: Sequence[int],
        channels: Sequence[int] | None = None,
        *,
        kernel_size: int = 3,
        stride: int = 2,
        padding: int = 1,
        slope: float = 0.1,
        seed: int = 0,
        layout: str = "NHWC",
        preprocessing: Preprocessing | None = None,
    ) -> None:
        if len(input_shape) not in (2, 3):
            raise ValueError(f"conv: input_shape must be (h, w) or (h, w, c), got {tuple(input_shape)}")
        sizes = [check_count("conv", "input_shape", n) for n in input_shape]
        first = checked_layout("conv", tuple(sizes), layout) == "NCHW"
        h, w, c = (*sizes[1:], sizes[0]) if first else (*sizes, 1)[:3]
        shape = (h, w, c)
        size = check_count("conv", "kernel_size", kernel_size)
        check_count("conv", "stride", stride)
        if check_count("conv", "padding", padding, minimum=0) >= size:
            raise ValueError(
                f"conv: padding must be below kernel_size = {size}, got {padding}: features would be zeros"
            )
        check_number("conv", "slope", slope, positive=True)
        check_seed("conv", seed)
        if channels is None:
            channels = [3 * shape[2]]
        elif isinstance(channels, str) or not isinstance(channels, (Sequence, np.ndarray)):
            remedy = f"; pass [{channels}]" if isinstance(channels, int) else ""
            raise TypeError(f"conv: channels must be a sequence of integers, got {channels!r}{remedy}")
        elif len(channels) == 0:
            raise ValueError("conv: channels must name at least one layer")
        d, layers = math.prod(shape), []
        for number, channel in enumerate(channels):
            c, outputs = shape[2], check_count("conv", f"channels[{number}]", channel)
            stream = Stream.WEIGHTS + number
            matrix = gaussian_weight(seed, stream, size * size * c, outputs, precision=size * size * c)
            convolution = Convolution(
                shape,
                matrix.reshape(size, size, c, outputs),
                stride=stride,
                padding=padding,
                channels_first=first and number == 0,
            )
            layers.append(Layer(convolution, None, "leaky_relu", float(slope)))
            shape = convolution.shape_out
        parameters = {
            "input_shape": sizes,
            "channels": [int(channel) for channel in channels],
            "kernel_size": size,
            "stride": int(stride),
            "padding": int(padding),
            "slope": float(slope),
            "seed": int(seed),
            **({"layout": layout} if first else {}),
        }
        super().__init__(d, tuple(layers), preprocessing=preprocessing, parameters=parameters)
