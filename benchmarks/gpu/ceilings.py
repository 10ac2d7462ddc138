"""What this GPU, its bus and its host reach in the products, factorisations and copies that a run is made of.

PyTorch calls the libraries (cuBLAS, cublasLt, cuSOLVER). ``floors.py`` takes its rates from here.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

import krrdistill as kd
from gpu.session import Session

__all__ = ["measure"]

_LAMBDAS = len(kd.default_lambdas())
_THREADS = (1, 4, 8)
_STREAMS = (2, 4)


def measure(session: Session) -> None:
    """All of them."""
    torch = session.torch
    began = time.perf_counter()
    torch.zeros(1, device=session.place)
    session.keep(context_seconds=time.perf_counter() - began)
    X = torch.randn(session.sizes.trained, session.sizes.d, device=session.place)
    _products(session, X)
    _accumulators(session, X)
    gram = _double(session, X)
    del X
    _factorisations(session, gram)
    _copies(session)
    _host(session)


def _products(session: Session, X: Any) -> None:
    torch, tile, (n, p) = session.torch, session.sizes.tile, X.shape
    square = 2.0 * p * p
    session.timed("sgemm, G", lambda: X.T @ X, id="sgemm_gram", flops=n * square)
    session.timed("sgemm, a layer", lambda: X[:tile] @ X[:p].T, id="sgemm_layer", flops=min(n, tile) * square)
    half = X.bfloat16()
    session.timed("bfloat16, G", partial(torch.mm, half.T, half), id="bf16_gram", flops=n * square)
    del half
    # The integer tensor cores of this generation want both operands with the summed dimension contiguous.
    whole = n // 32 * 32  # they take no other numbers of rows
    byte = (20 * X[:whole]).to(torch.int8).T.contiguous()
    session.timed("int8, G", lambda: torch._int_mm(byte, byte.T), id="int8_gram", flops=whole * square)
    for rows in (tile // 2, tile, 2 * tile):
        part = byte[:, :rows].contiguous()
        session.timed(
            f"int8, G of {part.shape[1]} rows",
            partial(torch._int_mm, part, part.T),
            id=f"int8_gram_{rows}",
            flops=part.shape[1] * square,
        )
        tall = byte.reshape(-1)[: part.shape[1] * p].reshape(-1, p)
        slices = byte.reshape(-1)[: 3 * p * p].reshape(3 * p, p)
        session.timed(
            f"int8, a layer in 3 slices, {len(tall)} rows",
            partial(torch._int_mm, tall, slices.T),
            id=f"int8_layer_{rows}",
            flops=3 * len(tall) * square,
        )
    session.timed("transposition of bytes", byte.T.contiguous, id="transpose_int8", bytes=2 * n * p)
    session.timed(
        "copy on the device", lambda: X[: n // 2].copy_(X[n // 2 : n // 2 * 2]), id="copy", bytes=8 * (n // 2) * p
    )


def _accumulators(session: Session, X: Any) -> None:
    """Bias and error of long sums: accumulators that truncate are biased towards zero."""
    torch = session.torch
    z = X[: session.sizes.tile // 2].bfloat16().float().abs()
    reference = z.double().T @ z.double()

    def kept(name: str, product: Any) -> None:
        difference = product.double() - reference
        bias = float((difference / reference).mean())
        error = float(torch.linalg.norm(difference) / torch.linalg.norm(reference))
        session.row(name=f"accumulator, {name}", bias=bias, relative_error=error)
        print(f"accumulator, {name}: bias {bias:.2e}, relative error {error:.2e}", flush=True)

    kept("FP32", z.T @ z)
    if session.place != "cuda":
        return
    torch.backends.cuda.matmul.allow_tf32 = True
    kept("TF32", z.T @ z)
    torch.backends.cuda.matmul.allow_tf32 = False
    kept("bfloat16 with FP32 sums", torch.mm(z.bfloat16().T, z.bfloat16(), out_dtype=torch.float32))


def _double(session: Session, X: Any) -> Any:
    rows = X[: 2 * session.sizes.tile].double()
    flops = 2.0 * len(rows) * rows.shape[1] ** 2
    return session.timed("dgemm, G", lambda: rows.T @ rows, id="dgemm_gram", flops=flops)


def _factorisations(session: Session, gram: Any) -> None:
    torch, p, k = session.torch, len(gram), session.sizes.k
    shifted = [gram + value * torch.eye(p, device=gram.device, dtype=gram.dtype) for value in range(1, _LAMBDAS + 1)]
    flops = _LAMBDAS * p**3 / 3

    def potrf(matrix: Any) -> Any:
        return torch.linalg.cholesky_ex(matrix)

    lower = session.timed("potrf", lambda: potrf(shifted[0]), id="potrf", flops=p**3 / 3).L
    session.timed(
        f"potrf, {_LAMBDAS} in turn", lambda: [potrf(a) for a in shifted], id="potrf_path", flops=flops, repeats=2
    )
    batch = torch.stack(shifted)
    session.timed(f"potrf, batch of {_LAMBDAS}", partial(potrf, batch), id="potrf_path_batch", flops=flops, repeats=2)
    del batch
    for count in _STREAMS if session.place == "cuda" else ():
        streams = [torch.cuda.Stream() for _ in range(count)]

        def across(streams: list[Any] = streams) -> None:
            for index, matrix in enumerate(shifted):
                with torch.cuda.stream(streams[index % len(streams)]):
                    potrf(matrix)

        name = f"potrf, {_LAMBDAS} on {count} streams"
        session.timed(name, across, id=f"potrf_path_streams_{count}", flops=flops, repeats=2)
    rhs = torch.randn(p, k, device=gram.device, dtype=gram.dtype)
    work = 2.0 * p * p * k
    session.timed(f"potrs, {k} columns", lambda: torch.cholesky_solve(rhs, lower), id="potrs", flops=work)
    session.timed("geqrf", lambda: torch.geqrf(gram), id="geqrf", flops=4 * p**3 / 3)
    session.timed("getrf", lambda: torch.linalg.lu_factor_ex(gram), id="getrf", flops=2 * p**3 / 3)
    session.timed("eigh", lambda: torch.linalg.eigh(gram), id="eigh", repeats=1, warm=False)
    wide = session.sizes.wide[1]
    big = torch.randn(wide, wide, device=gram.device, dtype=gram.dtype)
    big = big @ big.T
    big.diagonal().add_(float(wide))
    session.timed(f"potrf, order {wide}", lambda: potrf(big), id="potrf_wide", flops=wide**3 / 3, repeats=2)
    columns = torch.randn(wide, k, device=gram.device, dtype=gram.dtype)
    session.timed(
        f"potrs, order {wide}, {k} columns",
        lambda: torch.cholesky_solve(columns, big),
        id="potrs_wide",
        flops=2.0 * wide * wide * k,
        repeats=2,
    )


def _copies(session: Session) -> None:
    torch, size, on_gpu = session.torch, session.sizes.copied, session.place == "cuda"
    pageable = torch.from_numpy(np.random.default_rng(0).integers(0, 256, size, np.uint8))
    start = time.perf_counter()
    pinned = torch.empty(size, dtype=torch.uint8, pin_memory=on_gpu)
    session.row(
        name=f"allocation of {size >> 20} MiB of pinned memory", seconds=[time.perf_counter() - start], id="pin"
    )
    device = torch.empty(size, dtype=torch.uint8, device=session.place)
    for name, target, source in (
        ("host to device, pageable", device, pageable),
        ("host to device, pinned", device, pinned),
        ("device to host, pinned", pinned, device),
        ("device to host, pageable", pageable, device),
    ):
        session.timed(
            name,
            partial(target.copy_, source, non_blocking=True),
            id=name.replace(", ", "_").replace(" ", "_"),
            bytes=size,
        )
    if on_gpu:
        runtime = torch.cuda.cudart()
        start = time.perf_counter()
        runtime.cudaHostRegister(pageable.data_ptr(), size, 0)
        session.row(
            name=f"registration of {size >> 20} MiB of touched memory",
            seconds=[time.perf_counter() - start],
            id="register",
        )
        runtime.cudaHostUnregister(pageable.data_ptr())
    source, target = pageable.numpy(), pinned.numpy()
    for count in _THREADS:
        cuts = np.linspace(0, size, count + 1).astype(int)
        with ThreadPoolExecutor(count) as pool:

            def copied(pool: Any = pool, cuts: Any = cuts) -> None:
                list(pool.map(lambda a, b: np.copyto(target[a:b], source[a:b]), cuts[:-1], cuts[1:]))

            session.timed(
                f"host copy into pinned memory, {count} thread{'s' * (count > 1)}",
                copied,
                id=f"host_copy_{count}",
                bytes=size,
            )


def _host(session: Session) -> None:
    matrix = np.random.default_rng(0).standard_normal((session.sizes.d, session.sizes.d))
    flops = 2.0 * session.sizes.d**3
    session.timed("dgemm on the host", lambda: matrix @ matrix, id="host_dgemm", flops=flops, repeats=2)
