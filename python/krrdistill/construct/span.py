"""Inputs whose features span a given model, where no closed form gives them.

For fixed inputs the best labels leave W - W F^+ F, the part of W outside of the row space of their features F = phi(X)
(Theorem 4.2). It is driven to zero here by moving the inputs: k (p - m) equations in m d unknowns, so that a map
without preimages still allows an exact set once m (d + k) exceeds k p by some margin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy

from krrdistill.backends import Linearization
from krrdistill.errors import DataError

__all__ = ["Approach", "centered", "span_model"]

FloatArray = npt.NDArray[np.float64]
_MAX_STEPS = 60
_TOLERANCE = 1e-11  # of the relative residual
_INNER_ITERATIONS = 500
_INNER_TOLERANCE = 1e-2  # of the linear problem, relative: an inexact Newton method
_FIRST_DAMPING = 1e-3  # of the largest eigenvalue of J J^T
_DAMPING_FACTOR = 8.0
_MAX_RAISES = 6  # of the damping within a step
_STALLED = 0.999  # residual over that of the last step ...
_PATIENCE = 5  # ... in so many steps in a row


@dataclass(frozen=True, eq=False)
class Approach:
    """Inputs X (m, d), the relative residual ||W - W F^+ F|| / ||W|| there, and the steps that were taken."""

    X: FloatArray
    residual: float
    steps: int


def span_model(
    W: FloatArray,
    X: FloatArray,
    linearize: Callable[[FloatArray], Linearization],
    *,
    max_steps: int = _MAX_STEPS,
    progress: Callable[[float], None] | None = None,
) -> Approach:
    """Damped Gauss-Newton steps from X (m, d) on R(X) = W (I - F^+ F), F = phi(X), for W (k, p).

    With A = W F^+ the derivative is -A dF (I - F^+ F) + terms in R that the step leaves out (L. Kaufman, A variable
    projection method for solving separable nonlinear least squares problems, BIT 15, 1975). Each step is a damped least
    squares problem (Levenberg, Marquardt), solved by LSQR with products of the Jacobian only. A step that does not
    reduce the residual is taken back and the damping raised. Ends at 1e-11, where nothing improves, or after
    ``max_steps``.
    """
    scale = float(np.linalg.norm(W))
    state = _State(W, X, linearize)
    damping, stalled, step = 0.0, 0, 0
    for step in range(max_steps):
        if state.norm <= _TOLERANCE * scale or stalled == _PATIENCE:
            return Approach(state.X, state.norm / scale, step)
        if progress is not None:
            progress(step / max_steps)
        damping = damping or _FIRST_DAMPING * _largest_eigenvalue(state.jacobian())
        moved, damping = _improve(state, linearize, damping)
        if moved is None:
            return Approach(state.X, state.norm / scale, step)
        stalled = stalled + 1 if moved.norm > _STALLED * state.norm else 0
        state = moved
    return Approach(state.X, state.norm / scale, max_steps)


def centered(linearize: Callable[[FloatArray], Linearization]) -> Callable[[FloatArray], Linearization]:
    """The features about their mean over the inputs: what an intercept trains on."""

    def about_mean(F: FloatArray) -> FloatArray:
        return np.asarray(F - F.mean(axis=0))

    def linearize_centered(X: FloatArray) -> Linearization:
        at = linearize(X)
        return Linearization(
            about_mean(at.value), lambda V: about_mean(at.forward(V)), lambda U: at.backward(about_mean(U))
        )

    return linearize_centered


class _State:
    """What a step needs to know at X."""

    def __init__(self, W: FloatArray, X: FloatArray, linearize: Callable[[FloatArray], Linearization]) -> None:
        self.X, self.W = X, W
        self.at = linearize(X)
        F = self.at.value
        if not np.isfinite(F).all():
            raise DataError("preimage: the features of the inputs are not finite")
        U, s, Vt = np.linalg.svd(F, full_matrices=False)
        kept = s > np.finfo(np.float64).eps * max(F.shape) * s[0]
        self.basis = Vt[kept]  # of the row space of F
        inside = W @ self.basis.T
        self.labels = (inside / s[kept]) @ U[:, kept].T  # W F^+, (k, m)
        self.residual = W - inside @ self.basis
        self.norm = float(np.linalg.norm(self.residual))

    def jacobian(self) -> scipy.sparse.linalg.LinearOperator:
        """dX -> A dF (I - F^+ F), (m d) -> (k p): minus the derivative of the residual."""
        m, d = self.X.shape
        k, p = self.W.shape

        def outside(V: FloatArray) -> FloatArray:
            return np.asarray(V - (V @ self.basis.T) @ self.basis)

        def forward(v: FloatArray) -> FloatArray:
            return np.ravel(outside(self.labels @ self.at.forward(v.reshape(m, d))))

        def backward(u: FloatArray) -> FloatArray:
            return np.ravel(self.at.backward(self.labels.T @ outside(u.reshape(k, p))))

        return scipy.sparse.linalg.LinearOperator((k * p, m * d), matvec=forward, rmatvec=backward, dtype=np.float64)


def _improve(
    state: _State, linearize: Callable[[FloatArray], Linearization], damping: float
) -> tuple[_State | None, float]:
    """(the next state, None where every damping failed; the damping to go on with)."""
    jacobian, target = state.jacobian(), state.residual.ravel()
    for _ in range(_MAX_RAISES):
        solution = scipy.sparse.linalg.lsqr(
            jacobian, target, damp=damping**0.5, atol=_TOLERANCE, btol=_INNER_TOLERANCE, iter_lim=_INNER_ITERATIONS
        )[0]
        moved = _State(state.W, state.X + solution.reshape(state.X.shape), linearize)
        if moved.norm < state.norm:
            return moved, damping / _DAMPING_FACTOR
        damping *= _DAMPING_FACTOR
    return None, damping


def _largest_eigenvalue(operator: scipy.sparse.linalg.LinearOperator) -> float:
    """The largest eigenvalue of J^T J, roughly: a few power iterations from a fixed start."""
    v = np.cos(np.arange(1.0, operator.shape[1] + 1.0))
    norm = float(np.linalg.norm(v))
    for _ in range(5):
        v = operator.rmatvec(operator.matvec(v / norm))
        norm = float(np.linalg.norm(v)) or 1.0
    return norm
