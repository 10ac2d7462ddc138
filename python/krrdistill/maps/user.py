"""Maps that the user brings: any Python callable or torch module, with or without an inverse."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from krrdistill.backends import Layer, Linearization, Operator
from krrdistill.common.arrays import check_count
from krrdistill.common.files import content_digest
from krrdistill.common.options import shown_value
from krrdistill.common.random import Stream, normal
from krrdistill.data import Preprocessing
from krrdistill.errors import DataError, KrrDistillError
from krrdistill.maps.torch_function import TorchFunction, is_torch_module

from .base import FeatureMap

__all__ = ["UserMap", "check_map", "given_map", "load_object"]

AnyArray = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
_PROBES = 8  # rows of the fixed inputs
_SKETCHES = 4  # numbers that the file keeps of each probe's features
_SAME_FEATURES = 1e-4  # relative: float32 networks round differently from machine to machine
_INVERTED = 1e-6  # relative error of phi(inverse(F)) from which an inverse is none
_QUOTED = 300  # characters of an error of the user's function
_NOT_ONTO = (
    "the points have features F of any size, which the function must reach: a bounded one, such as tanh, does not. "
    "Learn labels for real samples instead (labels_only, --labels-only), or give a torch module without an inverse"
)


class FunctionOperator(Operator):
    """A function (n, d) -> (n, p) of rows that do not depend on each other, with what is known of it."""

    def __init__(self, name: str, function: Callable[[AnyArray], Any], input_dim: int, inverse: Any) -> None:
        self.name = name
        wrapped: Any = TorchFunction(function) if is_torch_module(function) else function
        if inverse is None and callable(getattr(function, "inverse", None)):
            inverse = wrapped.inverse
        self.function = wrapped
        self.inverse = inverse
        self.input_dim = input_dim
        self._output_dim = 0
        self.probe = self._probe()

    @property
    def shape(self) -> tuple[int, int]:
        """(p, d)."""
        return self._output_dim, self.input_dim

    @property
    def title(self) -> str:
        """The map by its name: it is its only layer but for whitening."""
        return f"the map {self.name}"

    @property
    def obstacle(self) -> str | None:
        """None with an inverse."""
        return None if self.inverse is not None else "has no inverse"

    @property
    def differentiable(self) -> bool:
        """True for torch modules."""
        return isinstance(self.function, TorchFunction)

    def apply(self, H: AnyArray) -> AnyArray:
        """function(H), checked."""
        if not len(H):
            return np.empty((0, self._output_dim), H.dtype)
        values = self._call(self.function, H)
        return self._checked("gives", values, (len(H), self._output_dim)).astype(H.dtype, copy=False)

    def linearize(self, H: FloatArray) -> Linearization:
        """By automatic differentiation."""
        at: Linearization = self.function.linearize(H)
        return at

    def preimage(self, T: FloatArray, near: FloatArray) -> FloatArray:
        """inverse(T), checked; a user's inverse knows no reference."""
        X = self._call(self.inverse, T)
        X = self._checked("has an inverse that gives", X, (len(T), self.input_dim), finite=False).astype(np.float64)
        if not np.isfinite(X).all():
            raise DataError(f"map {self.name}: inverse(F) holds NaN or infinity; {_NOT_ONTO}")
        error = float(np.linalg.norm(self.apply(X) - T)) / (float(np.linalg.norm(T)) or 1.0)
        if not error <= _INVERTED:
            raise DataError(
                f"map {self.name}: the features of inverse(F) differ from F by {error:.2g}, relatively; {_NOT_ONTO}"
            )
        return X

    def arrays(self) -> dict[str, AnyArray]:
        """The probe, in place of weights."""
        return {"probe": self.probe}

    def _probe(self) -> FloatArray:
        """(probes, sketches): fixed random combinations of the features of fixed N(0, 1) inputs.

        Raises DataError where a row's features depend on the other rows or on chance.
        """
        inputs = normal(0, Stream.PROBE, _PROBES * self.input_dim).reshape(_PROBES, -1)
        first = self._call(self.function, inputs)
        if first.ndim != 2 or len(first) != _PROBES or first.shape[1] == 0:
            raise DataError(
                f"map {self.name}: must give (n, p) for (n, {self.input_dim}), gives {first.shape} for {_PROBES} rows"
            )
        self._output_dim = first.shape[1]
        values = self._checked("gives", first, first.shape).astype(np.float64)
        alone = self.apply(inputs[: _PROBES // 2]).astype(np.float64)
        if not np.abs(alone - values[: _PROBES // 2]).max() <= _SAME_FEATURES * np.abs(values).max():
            raise DataError(
                f"map {self.name}: a row's features change with the other rows or from call to call; "
                "torch modules need .eval()"
            )
        sketch = normal(1, Stream.PROBE, self._output_dim * _SKETCHES).reshape(-1, _SKETCHES)
        return np.asarray(np.einsum("ij,jk->ik", values, sketch))

    def _call(self, function: Callable[[AnyArray], Any], H: AnyArray) -> AnyArray:
        """function(H) as an array; it may write to its argument. What it raises becomes a DataError."""
        try:
            return np.asarray(function(H.copy()))
        except (KrrDistillError, MemoryError):
            raise
        except Exception as error:
            raised = textwrap.shorten(f"{type(error).__name__}: {error}", _QUOTED)
            raise DataError(f"map {self.name}: fails for rows of shape {H.shape}: {raised}") from error

    def _checked(self, does: str, values: AnyArray, shape: tuple[int, ...], *, finite: bool = True) -> AnyArray:
        if values.dtype.kind not in "uifb":
            raise DataError(f"map {self.name}: {does} dtype {values.dtype}, expected numbers")
        if values.shape != shape:
            raise DataError(f"map {self.name}: {does} shape {values.shape}, expected {shape}")
        if finite and not np.isfinite(values).all():
            raise DataError(f"map {self.name}: {does} NaN or infinity")
        return values


class UserMap(FeatureMap):
    """Your own feature map: phi = function, any callable or torch module on rows of (preprocessed) inputs.

    Threads may share it if they may share the function.

    Parameters
    ----------
    function : callable or torch.nn.Module
        Function from arrays (n, d) to arrays (n, p). A torch module gets and returns tensors, in the dtype of its
        parameters. Every row of the result must depend on its own input row only (for modules: ``.eval()``). The
        function is called tile by tile, with float32 or float64 arrays.
    input_dim : int
        d.
    inverse : callable, optional
        Function from arrays (m, p) to arrays (m, d) with function(inverse(F)) = F for every F. By default it is the
        attribute ``inverse`` of ``function``. Without an inverse, inputs are approximate for torch modules (found by
        gradients). For other callables only labels can be learned.
    name : str, optional
        Name in files and messages. The command line uses "package.module:object".
    preprocessing : Preprocessing, optional
        Preprocessing of raw inputs, before the function; by default none (the commands standardise).

    Raises
    ------
    TypeError, DataError
        If the function is not callable, returns wrong shapes, NaN or infinity, is random, or mixes rows.

    Examples
    --------
    >>> import numpy as np
    >>> import krrdistill as kd
    >>> phi = kd.UserMap(np.exp, 2, inverse=np.log)
    >>> phi.reach
    'exact'
    >>> phi.transform(np.array([[0.0, 1.0]]))
    array([[1.        , 2.71828183]])
    """

    kernel: ClassVar[str] = "user"

    def __init__(
        self,
        function: Any,
        input_dim: int,
        *,
        inverse: Any = None,
        name: str | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        d = check_count("UserMap", "input_dim", input_dim)
        for argument, value in (("function", function), ("inverse", inverse)):
            if not callable(value) and not (argument == "inverse" and value is None):
                raise TypeError(f"UserMap: {argument} must be callable, got {type(value).__name__}")
        operator = FunctionOperator(name or _name_of(function), function, d, inverse)
        layers = (Layer(operator, None, "linear", 1.0),)
        super().__init__(d, layers, preprocessing=preprocessing, parameters={"name": operator.name})

    @property
    def operator(self) -> FunctionOperator:
        """The function with its inverse and its probe."""
        weight = self.own_layers[0].weight
        assert isinstance(weight, FunctionOperator)
        return weight

    def arrays(self) -> dict[str, AnyArray]:
        """None: a file keeps no part of the map, only ``spec``."""
        return {}

    def spec(self) -> dict[str, Any]:
        """Name, sizes, and a sketch of the features of fixed inputs, by which maps are recognised."""
        return {
            "kernel": self.kernel,
            "input_dim": self.input_dim,
            "output_dim": self.output_dim,
            "probe": self.operator.probe.tolist(),
            "preprocessed_by": content_digest(self.preprocessing.arrays()),
            **self.parameters,
        }

    def same_as(self, other: FeatureMap) -> bool:
        """Whether both maps give the same features, up to rounding on different machines and devices."""
        if self is other:
            return True
        try:
            self.check_spec(other.spec())
        except DataError:
            return False
        return True

    def check_spec(self, spec: Mapping[str, Any]) -> None:
        """Raise DataError unless this is the map that ``spec`` describes (sizes, preprocessing, features)."""
        for name, size in (("input_dim", self.input_dim), ("output_dim", self.output_dim)):
            if spec.get(name) != size:
                raise DataError(f"map {self.operator.name}: has {name} {size}, the file's map has {spec.get(name)!r}")
        own, stored = self.operator.probe, np.asarray(spec.get("probe"), dtype=np.float64)
        if stored.shape != own.shape or not np.abs(stored - own).max() <= _SAME_FEATURES * np.abs(own).max():
            raise DataError(f"map {self.operator.name}: its features of the probe inputs are not those in the file")
        own_digest = content_digest(self.preprocessing.arrays())
        if spec.get("preprocessed_by", own_digest) != own_digest:
            raise DataError(f"map {self.operator.name}: was given with another preprocessing than the file has")


def _name_of(function: Any) -> str:
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}:{named.__qualname__}"


def check_map(where: str, value: Any) -> None:
    """Raises TypeError, with the remedy, unless ``value`` is a feature map."""
    if isinstance(value, FeatureMap):
        return
    kind, remedy = value if isinstance(value, type) else type(value), ""
    if isinstance(value, str):
        remedy = f"; a name makes one: make_map({shown_value(value)}, X, standardize(X))"
    elif isinstance(value, type):
        remedy = f"; make one: {kind.__name__}(input_dim, ...)"
    elif callable(value):
        remedy = "; a function is a map of your own: UserMap(function, input_dim)"
    raise TypeError(f"{where}: feature_map must be a map, got {kind.__name__}{remedy}")


def given_map(feature_map: FeatureMap) -> UserMap | None:
    """What ``DistilledDataset.load`` needs besides a file of this map: itself if it is a user's, else nothing."""
    return feature_map if isinstance(feature_map, UserMap) else None


def load_object(reference: str, input_dim: int) -> FeatureMap:
    """The map "package.module:object": a FeatureMap, or a callable or torch module that becomes a ``UserMap``.

    A module that is installed nowhere is looked for in the working directory. Raises ValueError for what cannot be
    found or is none.
    """
    module_name, colon, attribute = reference.partition(":")
    if not (module_name and colon and attribute):
        raise ValueError(f"kernel: {reference!r} must read package.module:object")
    module = None
    try:
        # Last, and only for such a module: a matplotlib.py that lies there must not take the place of the library's.
        if importlib.util.find_spec(module_name.partition(".")[0]) is None and os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
        found: Any = (module := importlib.import_module(module_name))
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # whatever the user's module raises
        if module is None and (module_name.endswith(".py") or "/" in module_name or os.sep in module_name):
            stem = Path(module_name).stem
            raise ValueError(
                f"kernel: {reference!r} names a file, not a module: write {stem}:{attribute}, in the folder of "
                f"{stem}.py or with that folder in PYTHONPATH"
            ) from error
        where = getattr(module, "__file__", None)
        of = "" if where is None else f" from {where}"
        raise ValueError(f"kernel: cannot load {reference!r}{of}: {type(error).__name__}: {error}") from error
    if isinstance(found, FeatureMap):
        if found.input_dim != input_dim:
            raise ValueError(f"kernel: {reference} takes {found.input_dim} columns, the data set has {input_dim}")
        return found
    return UserMap(found, input_dim, name=reference)
