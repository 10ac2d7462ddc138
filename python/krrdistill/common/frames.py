"""Data frames and series of pandas, polars, pyarrow and their like, read through narwhals; columns become arrays."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.errors import BackendUnavailable, DataError

__all__ = ["column_values", "frame_of", "is_tabular", "numeric_block", "refuse_lazy"]

Array = npt.NDArray[Any]
_LIBRARIES = ("pandas", "polars", "pyarrow", "modin", "cudf")
_ENGINES = {"dask": "Dask", "ray": "Ray"}


def is_tabular(X: Any) -> bool:
    """Whether X is a data frame, table, series or column of a library that narwhals knows."""
    kind = type(X)
    return kind.__module__.partition(".")[0] in _LIBRARIES and (
        hasattr(X, "columns") or kind.__name__ in ("Series", "ChunkedArray", "Index") or "Array" in kind.__name__
    )


def refuse_lazy(where: str, name: str, X: Any) -> None:
    """Raises TypeError for a query that has not run, and for data that are spread over other processes."""
    kind = type(X)
    library = kind.__module__.partition(".")[0]
    if kind.__name__ == "LazyFrame":
        raise TypeError(f"{where}: {name} is a LazyFrame, a query that has not run; pass {name}.collect()")
    if library in _ENGINES:
        raise TypeError(
            f"{where}: {name} is a {_ENGINES[library]} {kind.__name__}, which this process would have to hold; "
            f"krrdistill.interop.{library} sums it where its rows are"
        )


def frame_of(where: str, name: str, X: Any) -> Any:
    """The narwhals frame or series of X."""
    refuse_lazy(where, name, X)
    try:
        import narwhals
    except ImportError as error:
        remedy = f'{where}: {name} is a {type(X).__name__}; reading it needs narwhals: pip install "krrdistill[data]"'
        raise BackendUnavailable(remedy) from error
    if type(X).__module__.partition(".")[0] == "pyarrow" and type(X).__name__ not in ("Table", "ChunkedArray"):
        import pyarrow

        X = pyarrow.table(X) if hasattr(X, "columns") else pyarrow.chunked_array([X])
    if type(X).__module__.partition(".")[0] == "pandas" and type(X).__name__ not in ("DataFrame", "Series"):
        X = sys.modules["pandas"].Series(X)  # of an index or an extension array
    return narwhals.from_native(X, eager_only=True, allow_series=True)


def column_values(where: str, name: str, y: Any) -> Array | None:
    """A series, or the only column or columns of a data frame, as an array; None for what is neither.

    Categories become the strings that they stand for. Raises DataError for missing values.
    """
    if not is_tabular(y):
        return None
    found = frame_of(where, name, y)
    columns = list(found.iter_columns()) if hasattr(found, "iter_columns") else [found]
    arrays = [_values(where, name, column) for column in columns]
    if hasattr(found, "iter_columns"):
        return np.stack(arrays, axis=1) if arrays else np.empty((0, 0))
    return arrays[0]


def _values(where: str, name: str, column: Any) -> Array:
    import narwhals

    missing = column.is_null()
    if missing.any():
        rows = np.flatnonzero(missing.to_numpy())
        label = f"{name}, column {column.name!r}," if column.name else name
        raise DataError(f"{where}: {label} has {len(rows)} missing values (first in row {rows[0]}); drop or fill them")
    if column.dtype in (narwhals.Categorical, narwhals.Enum):
        column = column.cast(narwhals.String)
    return np.asarray(column.to_numpy())


def numeric_block(where: str, frame: Any) -> Array:
    """The numbers of some rows of a narwhals frame, (r, d): its columns, or one column of vectors.

    Raises DataError for missing values and TypeError for columns that are not numbers.
    """
    import narwhals

    arrays = []
    for column in frame.iter_columns():
        if column.null_count():
            raise DataError(f"{where}: column {column.name!r} of X has missing values; drop or fill them")
        if isinstance(column.dtype, (narwhals.Array, narwhals.List)):
            arrays.append(_vectors(where, column))
        elif column.dtype.is_numeric() or column.dtype == narwhals.Boolean:
            arrays.append(np.asarray(column.to_numpy())[:, None])
        else:
            raise TypeError(
                f"{where}: column {column.name!r} of X holds {column.dtype}, which are no numbers; leave it out or "
                "encode it"
            )
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=1)


def _vectors(where: str, column: Any) -> Array:
    """A column of lists of equal length as a matrix."""
    if type(column.to_native()).__module__.partition(".")[0] == "pyarrow":
        return _arrow_vectors(where, column.name, column.to_native().combine_chunks())
    values = column.to_numpy()
    if values.dtype != object:
        return np.asarray(values)
    rows = [np.asarray(value) for value in values]
    if len({row.shape for row in rows}) > 1:
        raise DataError(f"{where}: column {column.name!r} of X holds lists of different lengths")
    return np.stack(rows) if rows else np.empty((0, 0))


def _arrow_vectors(where: str, name: str, array: Any) -> Array:
    """Arrow's lists of equal length, nested ones too, from the memory of their numbers."""
    import pyarrow

    n, kinds = len(array), pyarrow.types
    while kinds.is_list(array.type) or kinds.is_large_list(array.type) or kinds.is_fixed_size_list(array.type):
        lengths = () if kinds.is_fixed_size_list(array.type) else array.value_lengths().unique()
        if len(lengths) > 1:
            raise DataError(f"{where}: column {name!r} of X holds lists of different lengths")
        array = array.flatten()
    if array.null_count:
        raise DataError(f"{where}: column {name!r} of X has missing values; drop or fill them")
    return np.asarray(array.to_numpy(zero_copy_only=False)).reshape(n, len(array) // max(n, 1))
