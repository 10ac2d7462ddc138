from .grid import SweepOptions as SweepOptions
from .outcome import Outcome as Outcome
from .outcome import Sweep as Sweep
from .page import sweep_publication as sweep_publication
from .page import write_sweep as write_sweep
from .run import run_sweep as run_sweep
