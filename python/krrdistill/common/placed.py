"""Float64 matrices in memory of a device, with the arithmetic of arrays: they stay there until somebody copies them."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["AnyMatrix", "Cosines", "Engine", "Placed"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Signs = npt.NDArray[np.int8]


class Cosines(NamedTuple):
    """E (rows, columns) looked up in a table: E_ij = +-table[frequency_i (2 j + 1) mod 4 M], ``flat`` for frequency 0.

    The sign is the product of those of row and column.
    """

    table: FloatArray  # (4 M,)
    flat: float
    frequencies: IntArray  # (rows,)
    row_signs: Signs
    column_signs: Signs


class DeviceMatrix(Protocol):
    """A matrix as the compiled module has it."""

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def by_columns(self) -> bool: ...

    def transposed(self) -> DeviceMatrix: ...

    def part(self, first: int, rows: int) -> DeviceMatrix: ...

    def download(self, out: FloatArray) -> None: ...


class Engine(Protocol):
    """What works on matrices in the place of the host's BLAS, and keeps some of them where it works.

    Operands are arrays or ``Placed``. What is made of a placed one is placed, what is made of arrays alone an array.
    """

    def pays(self, operations: float, numbers: int) -> bool:
        """Whether so many operations are worth the way of so many numbers there and back."""
        ...

    def holds(self, numbers: int) -> bool:
        """Whether there is room for a matrix of so many numbers that stays, beside others that are made of it."""
        ...

    def place(self, A: FloatArray) -> Placed: ...

    def product(self, A: AnyMatrix, B: AnyMatrix) -> AnyMatrix: ...

    def gram(self, A: AnyMatrix) -> AnyMatrix: ...

    def solve_factored(self, lower: AnyMatrix, B: AnyMatrix) -> AnyMatrix: ...

    def cholesky(self, A: Placed, shift: float) -> tuple[Placed | None, float]:
        """(L, ||A + shift I||_1) for L L^T = A + shift I; None for L where that is not positive definite."""
        ...

    def eigenvectors(self, A: Placed) -> tuple[FloatArray, Placed]:
        """(eigenvalues of a symmetric A, ascending, eigenvectors in columns)."""
        ...

    def combine(self, alpha: float, A: AnyMatrix, beta: float, B: AnyMatrix) -> Placed:
        """alpha A + beta B; B may be one row, which is then added to each of A."""
        ...

    def combine_into(self, alpha: float, A: Placed, beta: float, B: AnyMatrix) -> None:
        """The same in the place of A."""
        ...

    def scaled_columns(self, A: Placed, factors: FloatArray) -> Placed:
        """A diag(factors)."""
        ...

    def largest_magnitude(self, A: Placed) -> float: ...

    def cosines(self, shape: tuple[int, int], drawn: Cosines) -> Placed:
        """A matrix that is zero but for its last rows and columns, which are E."""
        ...

    def undo_activation(self, layer: Any, H: Placed, near: AnyMatrix) -> Placed:
        """T - near, where the activation of the layer makes H of T; of several T the one nearest to ``near``."""
        ...

    def features(self, feature_map: Any, X: npt.NDArray[Any] | Placed) -> Placed | None:
        """phi(X) in float64; None for a map that does not run there."""
        ...


class Placed:
    """A float64 matrix in memory of a device; ``np.asarray`` copies it to the host, and nothing else does.

    Sums, differences and multiples are placed as well. Pickled and copied it is an array.

    Parameters
    ----------
    engine : Engine
        What made it, and works on it.
    made : DeviceMatrix
        The matrix as the engine knows it.
    """

    __array_ufunc__ = None  # an array beside it leaves the operator to it

    def __init__(self, engine: Engine, made: DeviceMatrix) -> None:
        self.engine = engine
        self.made = made

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        rows, columns = self.made.shape
        return rows, columns

    @property
    def size(self) -> int:
        """Numbers."""
        return self.shape[0] * self.shape[1]

    @property
    def T(self) -> Placed:
        """The transposed matrix, in the same memory."""
        return Placed(self.engine, self.made.transposed())

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Placed:
        """Neighbouring rows, in the same memory."""
        first, stop, step = rows.indices(len(self))
        if step != 1:
            raise ValueError(f"rows of a placed matrix are neighbours, got a step of {step}")
        return Placed(self.engine, self.made.part(first, max(0, stop - first)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """A copy on the host."""
        if copy is False:
            raise ValueError("the matrix is in memory of a device: NumPy gets a copy")
        out = np.empty(self.shape, order="F" if self.made.by_columns else "C")
        self.made.download(out)
        return out if dtype is None else out.astype(dtype, copy=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """As an array."""
        return np.asarray, (np.asarray(self),)

    def __add__(self, other: AnyMatrix) -> Placed:
        return self.engine.combine(1.0, self, 1.0, _rows(other))

    __radd__ = __add__

    def __sub__(self, other: AnyMatrix) -> Placed:
        return self.engine.combine(1.0, self, -1.0, _rows(other))

    def __rsub__(self, other: FloatArray) -> Placed:
        return self.engine.combine(-1.0, self, 1.0, _rows(other))

    def __mul__(self, factor: float) -> Placed:
        return self.engine.combine(float(factor), self, 0.0, self._zeros())

    __rmul__ = __mul__

    def __iadd__(self, other: AnyMatrix) -> Placed:
        self.engine.combine_into(1.0, self, 1.0, _rows(other))
        return self

    def __isub__(self, other: AnyMatrix) -> Placed:
        self.engine.combine_into(1.0, self, -1.0, _rows(other))
        return self

    def __imul__(self, factor: float) -> Placed:
        self.engine.combine_into(float(factor), self, 0.0, self._zeros())
        return self

    def __rmatmul__(self, vector: FloatArray) -> FloatArray:
        """v^T A of a vector (rows,), an array (columns,)."""
        return np.asarray(self.engine.product(np.atleast_2d(vector), self)).ravel()

    def mean(self, *, axis: int) -> FloatArray:
        """The means of the columns, an array."""
        if axis != 0:
            raise ValueError(f"means of a placed matrix are those of its columns (axis 0), got axis {axis}")
        return self.__rmatmul__(np.full(len(self), 1.0 / len(self)))

    def _zeros(self) -> FloatArray:
        return np.zeros((1, self.shape[1]))


AnyMatrix: TypeAlias = FloatArray | Placed


def _rows(other: AnyMatrix) -> AnyMatrix:
    """A matrix, of a vector the matrix that has it as a row."""
    return other if isinstance(other, Placed) else np.atleast_2d(other)
