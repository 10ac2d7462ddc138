"""Kernel inducing points (KIP): the iterative baseline, as published and from the sufficient statistics alone."""

from .distill import KipPoint, KipResult, kip_distill
from .options import KipOptions
from .run import KipRun, run_kip

__all__ = ["KipOptions", "KipPoint", "KipResult", "KipRun", "kip_distill", "run_kip"]
