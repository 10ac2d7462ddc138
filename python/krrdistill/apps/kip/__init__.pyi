from .distill import KipPoint as KipPoint
from .distill import KipResult as KipResult
from .distill import kip_distill as kip_distill
from .iteration import KipOptions as KipOptions
from .run import KipRun as KipRun
from .run import run_kip as run_kip
