from .options import DistillOptions
from .run import RunResult
from .run import run_distillation as run

__all__ = ["DistillOptions", "RunResult", "run"]
