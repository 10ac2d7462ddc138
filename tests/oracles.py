"""What the tests believe: the formulas of the theory in float64 NumPy, without blocking and without krrdistill.

Samples are columns here, as in the paper: X (d, n), Y (k, n), Phi (p, n), W (k, p), D (m, p), Phi_S (p, m), Y_S (k, m).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
# (weight, bias, activation, parameter) as the package's layers are; nothing of the package is needed for that. A weight
# that is no matrix has inputs, signs and scale.
Layers = Iterable[tuple[Any, Any, str, float]]

_MASK = (1 << 64) - 1


def philox(key: int, n: int) -> list[int]:
    """The first n 64-bit words of Philox-4x64-10 (Salmon et al., SC 2011), the counter starting at 1."""
    words: list[int] = []
    counter = 0
    while len(words) < n:
        counter += 1
        x = [(counter >> (64 * i)) & _MASK for i in range(4)]
        k = [key & _MASK, key >> 64]
        for _ in range(10):
            a, b = 0xD2E7470EE14C6C93 * x[0], 0xCA5A826395121157 * x[2]
            x = [(b >> 64) ^ x[1] ^ k[0], b & _MASK, (a >> 64) ^ x[3] ^ k[1], a & _MASK]
            k = [(k[0] + 0x9E3779B97F4A7C15) & _MASK, (k[1] + 0xBB67AE8584CAA73B) & _MASK]
        words += x
    return words[:n]


def features(X: Any, layers: Layers = (), scale: Any = None, shift: Any = None) -> FloatArray:
    """phi(X): h_0 = x scale + shift, h_l = act_l(W_l h_{l-1} + b_l)."""
    H = _affine(X, scale, shift)
    for weight, bias, activation, parameter in layers:
        H = dense(weight) @ H + _column(bias)
        if activation == "cosine":
            H = parameter * np.cos(H)
        elif activation == "leaky_relu":
            H = np.maximum(H, 0.0) + parameter * np.minimum(H, 0.0)
    return H


def feature_magnitude(X: Any, layers: Layers = (), scale: Any = None, shift: Any = None) -> FloatArray:
    """What the rounding errors of ``features`` are relative to: the same chain with every term in absolute value.

    In a structured weight the terms are the entries between the transforms: at most the norm of the input.
    """
    H = np.abs(_as_float64(X))
    if scale is not None:
        H = H * np.abs(_column(scale)) + np.abs(_column(shift))
    for weight, bias, activation, parameter in layers:
        if hasattr(weight, "signs"):
            H = _column(weight.scale) * np.linalg.norm(H, axis=0)
        else:
            H = np.abs(_as_float64(weight)) @ H
        H = H + np.abs(_column(bias))
        if activation == "cosine":
            H = parameter * (H + 1.0)
        elif activation == "leaky_relu":
            H = max(1.0, parameter) * H
    return H


def dense(weight: Any) -> FloatArray:
    """The matrix (p, d) of a layer: the weight itself, or the product of the factors of a structured one.

    In a round the first and the last c rows change places, then H D multiplies the first n and H D' the last n of them.
    """
    if not hasattr(weight, "signs"):
        return _as_float64(weight)
    d, n = weight.inputs, weight.signs.shape[2]
    H = np.ones((1, 1))
    while len(H) < n:
        H = np.kron(H, np.array([[1.0, 1.0], [1.0, -1.0]])) / np.sqrt(2.0)
    order = np.arange(d)
    c = (d - n + 1) // 2
    for i in range(c):
        order[[i, d - c + i]] = d - c + i, i
    Q = np.eye(d)
    for first, last in weight.signs:
        Q = Q[order]
        Q[:n] = H @ (first[:, None] * Q[:n])
        Q[d - n :] = H @ (last[:, None] * Q[d - n :])
    return weight.scale.astype(np.float64)[:, None] * Q[: len(weight.scale)]


def one_hot(labels: Any, k: int) -> FloatArray:
    """Y (k, n) with Y[c, i] = 1 where sample i has class c."""
    return np.asarray(np.arange(k)[:, None] == np.asarray(labels)[None, :], dtype=np.float64)


def gram(Phi: FloatArray) -> FloatArray:
    """G = Phi Phi^T."""
    return Phi @ Phi.T


def cross(Y: FloatArray, Phi: FloatArray) -> FloatArray:
    """C = Y Phi^T."""
    return Y @ Phi.T


def ridge(Y: FloatArray, Phi: FloatArray, lambda_: float) -> FloatArray:
    """W = Y Phi^T (Phi Phi^T + lambda I)^-1, from the data: singular values s of Phi become s / (s^2 + lambda)."""
    U, s, Vt = np.linalg.svd(Phi, full_matrices=False)
    return ((Y @ Vt.T) * (s / (s * s + lambda_))) @ U.T


def ridge_of_statistics(G: FloatArray, C: FloatArray, lambda_: float) -> FloatArray:
    """W = C (G + lambda I)^-1."""
    return np.linalg.solve(G + lambda_ * np.eye(len(G)), C.T).T


def degrees_of_freedom(G: FloatArray, lambda_: float) -> float:
    """tr(G (G + lambda I)^-1) = sum of s / (s + lambda) over the eigenvalues s of G."""
    s = np.linalg.eigvalsh(G)
    return float(np.sum(s / (s + lambda_)))


def rmse(W: FloatArray, Y: FloatArray, Phi: FloatArray) -> float:
    """Root of the mean over samples of ||y - W phi||^2."""
    return float(np.sqrt(np.sum((Y - W @ Phi) ** 2) / Y.shape[1]))


def predictions(W: FloatArray, Phi: FloatArray) -> npt.NDArray[np.int64]:
    """The class of the largest score, the first of equals."""
    return np.argmax(W @ Phi, axis=0)


def margins(W: FloatArray, Phi: FloatArray) -> FloatArray:
    """How far the largest score of every sample is above the second."""
    scores = np.sort(W @ Phi, axis=0)
    return scores[-1] - scores[-2] if len(scores) > 1 else np.full(scores.shape[1], np.inf)


def retrained(Phi_S: FloatArray, Y_S: FloatArray, lambda_s: float) -> FloatArray:
    """W_S = Y_S Phi_S^+, or Y_S (Phi_S^T Phi_S + lambda_s I)^-1 Phi_S^T."""
    if lambda_s == 0.0:
        return Y_S @ np.linalg.pinv(Phi_S)
    return ridge(Y_S, Phi_S, lambda_s)


def extended_features(layers: Any, U: FloatArray) -> npt.NDArray[np.longdouble]:
    """phi of standardised inputs in extended precision (64 bits of mantissa on x86), samples in rows."""
    H = U.astype(np.longdouble)
    for weight, bias, activation, parameter in layers:
        H = H @ weight.T.astype(np.longdouble)
        H = H if bias is None else H + bias.astype(np.longdouble)
        if activation == "leaky_relu":
            H = np.where(H > 0, H, np.longdouble(parameter) * H)
        elif activation == "cosine":
            H = np.longdouble(parameter) * np.cos(H)
    return H


def extended_retrained(F: npt.NDArray[np.longdouble], Y: FloatArray, lambda_s: float) -> npt.NDArray[np.longdouble]:
    """Y^T (F F^T + lambda_s I)^-1 F, samples in rows, m <= p, by Gaussian elimination in extended precision."""
    A = F @ F.T + np.longdouble(lambda_s) * np.eye(len(F), dtype=np.longdouble)
    B = np.concatenate([A, F], axis=1)
    for i in range(len(A)):
        pivot = i + int(np.argmax(np.abs(B[i:, i])))
        B[[i, pivot]] = B[[pivot, i]]
        B[i] /= B[i, i]
        others = np.arange(len(A)) != i
        B[others] -= np.outer(B[others, i], B[i])
    return Y.T.astype(np.longdouble) @ B[:, len(A) :]


def dual(W: FloatArray, Y_S: FloatArray, Z: FloatArray) -> FloatArray:
    """D = Y_S^+ W + (I - Y_S^+ Y_S) Z."""
    inverse = np.linalg.pinv(Y_S)
    return inverse @ W + (np.eye(Y_S.shape[1]) - inverse @ Y_S) @ Z


def features_of_dual(D: FloatArray, lambda_s: float, root: str = "plus") -> FloatArray:
    """Phi_S = D^+ for lambda_s = 0; else U diag(sigma) V^T of D = V diag(s) U^T, with sigma from the quadratic."""
    if lambda_s == 0.0:
        return np.linalg.pinv(D)
    V, s, Ut = np.linalg.svd(D, full_matrices=False)
    discriminant = np.sqrt(np.maximum(1.0 - 4.0 * lambda_s * s * s, 0.0))
    sigma = np.zeros_like(s)
    positive = s > 1e-13 * s[0]
    if root == "plus":
        sigma[positive] = (1.0 + discriminant[positive]) / (2.0 * s[positive])
    else:
        sigma[positive] = 2.0 * lambda_s * s[positive] / (1.0 + discriminant[positive])
    return Ut.T @ np.diag(sigma) @ V.T


def bound(D: FloatArray) -> float:
    """The largest solvable lambda_s, 1 / (4 s_1^2)."""
    return float(0.25 / np.linalg.svd(D, compute_uv=False)[0] ** 2)


def raise_singular_values(A: FloatArray, condition: float) -> FloatArray:
    """A with singular values below s1 / condition raised to that."""
    U, s, Vt = np.linalg.svd(A, full_matrices=False)
    return U @ np.diag(np.maximum(s, s[0] / condition)) @ Vt


def regularised_inverse(Phi: FloatArray, lambda_s: float) -> FloatArray:
    """(Phi^T Phi + lambda_s I)^-1 Phi^T, shape (m, p)."""
    if lambda_s == 0.0:
        return np.linalg.pinv(Phi)
    return np.linalg.inv(Phi.T @ Phi + lambda_s * np.eye(Phi.shape[1])) @ Phi.T


def unregularised(Phi: FloatArray, lambda_s: float) -> FloatArray:
    """Phi_lambda (p, m), the matrix whose pseudo-inverse is the regularised inverse of Phi."""
    return np.linalg.pinv(regularised_inverse(Phi, lambda_s))


def kip_labels(Phi_S: FloatArray, Phi: FloatArray, Y: FloatArray) -> tuple[FloatArray, FloatArray, float]:
    """(Y_S, M, lambda_s): Y_S = Y M^+, M = (K_SS + lambda_s I)^-1 K_SX, lambda_s = 1e-6 trace(K_SS) / m."""
    kernel = Phi_S.T @ Phi_S
    lambda_s = 1e-6 * float(np.trace(kernel)) / len(kernel)
    M = np.linalg.inv(kernel + lambda_s * np.eye(len(kernel))) @ Phi_S.T @ Phi
    return Y @ np.linalg.pinv(M), M, lambda_s


def kip_loss(Phi_S: FloatArray, Phi: FloatArray, Y: FloatArray, batch: Any = slice(None)) -> float:
    """||Y_S (K_SS + lambda_s I)^-1 K_SB - Y_B||^2 with the best labels for all of (Phi, Y)."""
    labels, M, _ = kip_labels(Phi_S, Phi, Y)
    return float(np.sum((labels @ M[:, batch] - Y[:, batch]) ** 2))


def adam(X: FloatArray, gradients: list[FloatArray], lr: float) -> FloatArray:
    """X after one step of Adam per gradient, beta = (0.9, 0.999), eps = 1e-8; every average as the sum that it is."""
    X = X.copy()
    for t in range(1, len(gradients) + 1):
        first = sum(0.1 * 0.9 ** (t - i) * gradients[i - 1] for i in range(1, t + 1)) / (1.0 - 0.9**t)
        second = sum(0.001 * 0.999 ** (t - i) * gradients[i - 1] ** 2 for i in range(1, t + 1)) / (1.0 - 0.999**t)
        X -= lr * first / (np.sqrt(second) + 1e-8)
    return X


def least_norm(weight: FloatArray, rhs: FloatArray) -> FloatArray:
    """X = W^+ R."""
    return np.linalg.pinv(weight) @ rhs


def condition(A: FloatArray) -> float:
    """s_1 / s_min."""
    s = np.linalg.svd(A, compute_uv=False)
    return float(s[0] / s[-1])


def median_square_distance(X: FloatArray) -> float:
    """Median of ||x_i - x_j||^2 over i < j, X (d, n)."""
    n = X.shape[1]
    return float(np.median([np.sum((X[:, i] - X[:, j]) ** 2) for i in range(n) for j in range(i)]))


def _affine(X: Any, scale: Any, shift: Any) -> FloatArray:
    return _as_float64(X) if scale is None else _as_float64(X) * _column(scale) + _column(shift)


def _as_float64(A: Any) -> FloatArray:
    return np.asarray(A, dtype=np.float64)


def _column(a: Any) -> FloatArray:
    return np.zeros((1, 1)) if a is None else np.asarray(a, dtype=np.float64)[:, None]
