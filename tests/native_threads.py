"""Eight Python threads in the compiled module at once: ThreadSanitizer (`make tsan`) reports what they race for.

OpenMP has one thread here: GCC's runtime is not instrumented, and its barriers would look like races.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from krrdistill.common.native import load_native

THREADS, ROUNDS = 8, 3


def work(module: Any, seed: int) -> list[Any]:
    """Every operation once, on inputs that the threads share and outputs of their own."""
    rng = np.random.default_rng(seed)
    n, d, p, k = 70, 33, 16, 3
    x, y = rng.integers(0, 256, (n, d)).astype(np.uint8), rng.integers(0, k, n)
    scale, shift = np.full(d, 1 / 64), np.full(d, -2.0)
    dense = (rng.normal(size=(p, d)).astype("f4"), rng.normal(size=p).astype("f4"), 2, 0.3)
    signs = np.where(rng.random((3, 2, 32)) < 0.5, 1.0, -1.0).astype("f4")
    structured = ((signs, np.ones(p, "f4")), None, 1, 0.1)
    made: list[Any] = []
    for layers in ([dense], [structured]):
        phi = module.FeatureMapF32(d, scale, shift, layers)
        features, gram, cross, correct = np.empty((n, p), "f4"), np.zeros((p, p)), np.zeros((k, p)), np.zeros(2, int)
        module.transform(phi, x, None, features, 16)
        module.accumulate(phi, x, None, y, gram, cross, 16)
        module.symmetrize(gram)
        module.score_path(phi, x, None, y, rng.normal(size=(2, k, p)).astype("f4"), correct, 16)
        for method in ("band", "cholesky"):
            models, flags = np.zeros((4, k, p)), np.zeros((2, 4), bool)
            module.ridge_path(gram.copy(), cross, np.geomspace(1, 9, 4), 1e-9, models, *flags, method)
            made.append(models)
        degrees = np.empty(3)
        module.degrees_of_freedom(gram.copy(), np.array([1.0, 2.0, 3.0]), degrees)
        made += [features, gram, cross, correct, degrees]
    plain, gram = module.FeatureMapF64(d, scale, shift, []), np.zeros((d, d))
    module.accumulate(plain, x, None, np.zeros((n, 0)), gram, np.zeros((0, d)), 16)
    spd, rhs = (gram + np.eye(d))[None], rng.normal(size=(1, 2, d))
    module.solve_spd(spd, rhs)
    inputs, targets = np.empty((4, d)), rng.normal(size=(4, p))
    module.preimage_solve(rng.normal(size=(p, d)), targets.copy(), inputs, 1e-15)
    again, normal = np.empty((4, d)), np.empty(500)
    module.hadamard_solve(signs.astype("f8"), np.ones(p), targets, again)
    module.normal_from_bits(rng.integers(0, 2**63, 500, dtype=np.uint64), normal)
    return [*made, gram, rhs, inputs, again, normal]


def main() -> None:
    """All threads start together, and must give the bits of one."""
    module, start = load_native(), threading.Barrier(THREADS)

    def run(number: int) -> list[list[Any]]:
        start.wait()
        return [work(module, seed) for seed in range(ROUNDS)]

    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(run, range(THREADS)))
    for seed in range(ROUNDS):
        expected = work(module, seed)
        for of_thread in found:
            for one, other in zip(of_thread[seed], expected, strict=True):
                np.testing.assert_array_equal(one, other)
    print(f"{THREADS} threads, {ROUNDS} rounds: the same bits")


if __name__ == "__main__":
    main()
