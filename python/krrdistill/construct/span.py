"""Inputs whose features span a given model, where no closed form gives them.

For fixed inputs the best labels leave W - W F^+ F, the part of W outside of the row space of their features F = phi(X)
(Theorem 4.2). It is driven to zero here by moving the inputs: k (p - m) equations in m d unknowns, so that a map
without preimages still allows an exact set once m (d + k) exceeds k p by some margin.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import scipy
import scipy.linalg

from krrdistill.backends import Linearization
from krrdistill.errors import DataError

__all__ = ["Approach", "span_model"]

FloatArray = npt.NDArray[np.float64]
Linearize = Callable[[FloatArray], Linearization]
MAX_STEPS = 100
_TOLERANCE = 1e-11  # of the relative residual
_INNER_ITERATIONS = 500
_INNER_TOLERANCE = 1e-2  # of the linear problem, relative: an inexact Newton method
_FIRST_DAMPING = 0.1  # of the largest eigenvalue of J J^T: less ends in worse minima
_GAINS = ((0.8, 8.0), (0.1, 3.0))  # from this share of the promised reduction on, the damping is divided by so much
_RAISE = 4.0  # factor of the damping after a step that is taken back
_MAX_RAISES = 8  # of the damping within a step
_STALLED = 0.999  # residual over that of the last step ...
_PATIENCE = 10  # ... in so many steps in a row
_MOST_EQUATIONS = 2000  # k (p - m) up to which a step is solved by Cholesky
_MOST_ENTRIES = 1 << 24  # m p d of the Jacobian up to which it is formed
_CHUNK = 1 << 22  # entries of the inputs that are differentiated at a time


@dataclass(frozen=True, eq=False)
class Approach:
    """Inputs X (m, d), the relative residual ||W - W F^+ F|| / ||W|| there, and the steps that were taken.

    ``stopped``: what ended them before they were done, "steps" or "seconds"; None where they converged or nothing
    improved any more.
    """

    X: FloatArray
    residual: float
    steps: int
    stopped: str | None = None


def span_model(
    W: FloatArray,
    X: FloatArray,
    linearize: Linearize,
    *,
    centered: bool = False,
    max_steps: int = MAX_STEPS,
    max_seconds: float | None = None,
    progress: Callable[[float], None] | None = None,
) -> Approach:
    """Damped Gauss-Newton steps from X (m, d) on R(X) = W (I - F^+ F), F = phi(X), for W (k, p).

    With A = W F^+ the derivative is -A dF (I - F^+ F) + terms in R that the step leaves out (L. Kaufman, A variable
    projection method for solving separable nonlinear least squares problems, BIT 15, 1975). Each step is a damped least
    squares problem (Levenberg, Marquardt) in k (p - m) equations. Few of them are solved by Cholesky with the Jacobian
    of every row, which one pass over copies of the rows gives; many by LSQR with products of the Jacobian only. A step
    that does not reduce the residual is taken back and the damping raised. Ends at 1e-11, where nothing improves, after
    ``max_steps``, or with the best inputs so far after ``max_seconds``.

    ``centered`` : the features about their mean over the inputs, what an intercept trains on.
    """
    scale = float(np.linalg.norm(W))
    deadline = None if max_seconds is None else time.monotonic() + max_seconds
    state = _State(W, X, linearize, centered, deadline)
    damping, stalled, step, stopped = 0.0, 0, 0, None
    try:
        while state.norm > _TOLERANCE * scale and stalled < _PATIENCE:
            if step == max_steps:
                stopped = "steps"
                break
            if progress is not None:
                progress(step / max_steps)
            damping = damping or _FIRST_DAMPING * _largest_eigenvalue(state.jacobian())
            moved, damping = _improve(state, damping)
            if moved is None:
                break
            stalled = stalled + 1 if moved.norm > _STALLED * state.norm else 0
            state, step = moved, step + 1
    except _OutOfTimeError:
        stopped = "seconds"
    return Approach(state.X, state.norm / scale, step, stopped)


class _OutOfTimeError(Exception):
    """The deadline has passed."""


class _State:
    """What a step needs to know at X."""

    def __init__(
        self, W: FloatArray, X: FloatArray, linearize: Linearize, centered: bool, deadline: float | None
    ) -> None:
        self.X, self.W, self.linearize = X, W, linearize
        self.centered, self.deadline = centered, deadline
        self.at = linearize(X)
        F = self.at.value
        if not np.isfinite(F).all():
            raise DataError("preimage: the features of the inputs are not finite")
        F = F - F.mean(axis=0) if centered else F
        U, s, Vt = np.linalg.svd(F, full_matrices=False)
        kept = s > np.finfo(np.float64).eps * max(F.shape) * s[0]
        self.basis = Vt[kept]  # of the row space of F
        inside = W @ self.basis.T
        labels = (inside / s[kept]) @ U[:, kept].T  # W F^+, (k, m)
        self.labels = labels - labels.mean(axis=1, keepdims=True) if centered else labels  # A (dF about its mean)
        self.residual = W - inside @ self.basis
        self.norm = float(np.linalg.norm(self.residual))

    def moved(self, step: FloatArray) -> _State:
        """The state at X + step."""
        self.check_time()
        return _State(self.W, self.X + step, self.linearize, self.centered, self.deadline)

    def check_time(self) -> None:
        """Raises _OutOfTimeError past the deadline."""
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise _OutOfTimeError

    def jacobian(self) -> scipy.sparse.linalg.LinearOperator:
        """dX -> A dF (I - F^+ F), (m d) -> (k p): minus the derivative of the residual."""
        m, d = self.X.shape
        k, p = self.W.shape

        def outside(V: FloatArray) -> FloatArray:
            return np.asarray(V - (V @ self.basis.T) @ self.basis)

        def forward(v: FloatArray) -> FloatArray:
            self.check_time()
            return np.ravel(outside(self.labels @ self.at.forward(v.reshape(m, d))))

        def backward(u: FloatArray) -> FloatArray:
            return np.ravel(self.at.backward(self.labels.T @ outside(u.reshape(k, p))))

        return scipy.sparse.linalg.LinearOperator((k * p, m * d), matvec=forward, rmatvec=backward, dtype=np.float64)

    def promised(self, step: FloatArray) -> float:
        """What the norm of the residual is after a step (m, d), to first order."""
        return float(np.linalg.norm(self.residual.ravel() - self.jacobian().matvec(step.ravel())))

    def step(self, damping: float) -> FloatArray | None:
        """V (m, d) with the smallest ||R - A dF (I - F^+ F)||^2 + damping ||V||^2; None where rounding hides it."""
        (m, d), (k, p) = self.X.shape, self.W.shape
        if k * (p - len(self.basis)) > _MOST_EQUATIONS or m * p * d > _MOST_ENTRIES:
            return np.asarray(
                scipy.sparse.linalg.lsqr(
                    self.jacobian(),
                    self.residual.ravel(),
                    damp=damping**0.5,
                    atol=_TOLERANCE,
                    btol=_INNER_TOLERANCE,
                    iter_lim=_INNER_ITERATIONS,
                )[0]
            ).reshape(m, d)
        outside, rows, gram = self._equations
        shifted = gram + damping * np.eye(len(gram))
        try:
            factor = scipy.linalg.cho_factor(shifted, lower=True, overwrite_a=True)
        except np.linalg.LinAlgError:
            return None
        multipliers = scipy.linalg.cho_solve(factor, (self.residual @ outside).ravel()).reshape(k, -1)
        return np.asarray(np.einsum("iqd,iq->id", rows, self.labels.T @ multipliers))

    @cached_property
    def _equations(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """(N (p, q), N^T J_i (m, q, d), Gram matrix (k q, k q) of A dF N) for N a basis outside of the rows of F."""
        self.check_time()
        k, p = self.W.shape
        outside = np.linalg.qr(self.basis.T, mode="complete")[0][:, len(self.basis) :]
        rows = outside.T @ _row_jacobians(self.linearize, self.X, p)
        grams = rows @ rows.transpose(0, 2, 1)  # (m, q, q)
        gram = np.tensordot(self.labels[:, None] * self.labels, grams, axes=1)  # (k, k, q, q)
        size = k * outside.shape[1]
        return outside, rows, gram.transpose(0, 2, 1, 3).reshape(size, size)


def _row_jacobians(linearize: Linearize, X: FloatArray, p: int) -> FloatArray:
    """J_i (p, d) of every row of X (m, d): the gradient of output j at a copy of the row, for all j in one product."""
    m, d = X.shape
    found = np.empty((m, p, d))
    step = max(1, _CHUNK // (m * max(d, p)))
    for start in range(0, p, step):
        outputs = np.eye(p)[start : start + step]
        copies = linearize(np.repeat(X, len(outputs), axis=0))
        found[:, start : start + step] = copies.backward(np.tile(outputs, (m, 1))).reshape(m, len(outputs), d)
    return found


def _improve(state: _State, damping: float) -> tuple[_State | None, float]:
    """(the next state, None where every damping failed; the damping to go on with)."""
    for _ in range(_MAX_RAISES):
        step = state.step(damping)
        moved = None if step is None else state.moved(step)
        if moved is not None and moved.norm < state.norm:
            assert step is not None
            gain = (state.norm**2 - moved.norm**2) / (state.norm**2 - state.promised(step) ** 2)
            return moved, damping / next((factor for least, factor in _GAINS if gain > least), 1.0)
        damping *= _RAISE
    return None, damping


def _largest_eigenvalue(operator: scipy.sparse.linalg.LinearOperator) -> float:
    """The largest eigenvalue of J^T J, roughly: a few power iterations from a fixed start."""
    v = np.cos(np.arange(1.0, operator.shape[1] + 1.0))
    norm = float(np.linalg.norm(v))
    for _ in range(5):
        v = operator.rmatvec(operator.matvec(v / norm))
        norm = float(np.linalg.norm(v)) or 1.0
    return norm
