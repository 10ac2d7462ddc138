from ._version import __version__ as __version__
from .apps.distillation import RunResult as RunResult
from .apps.distillation import run_distillation as run_distillation
from .apps.kip.distill import KipResult as KipResult
from .apps.kip.distill import kip_distill as kip_distill
from .apps.kip.iteration import KipOptions as KipOptions
from .apps.kip.run import run_kip as run_kip
from .artifact.certificate import Certificate as Certificate
from .artifact.file import DistilledDataset as DistilledDataset
from .backends import backend_status as backend_status
from .backends import get_backend as get_backend
from .data import (
    Dataset as Dataset,
)
from .data import (
    Preprocessing as Preprocessing,
)
from .data import (
    load_dataset as load_dataset,
)
from .data import (
    standardize as standardize,
)
from .data import (
    zca as zca,
)
from .errors import (
    BackendUnavailable as BackendUnavailable,
)
from .errors import (
    DataError as DataError,
)
from .errors import (
    Diverged as Diverged,
)
from .errors import (
    KrrDistillError as KrrDistillError,
)
from .errors import (
    LambdaOutOfRange as LambdaOutOfRange,
)
from .errors import (
    NotPositiveDefinite as NotPositiveDefinite,
)
from .errors import (
    NotSurjective as NotSurjective,
)
from .maps import (
    FCNN as FCNN,
)
from .maps import (
    ConvolutionalNetwork as ConvolutionalNetwork,
)
from .maps import (
    DeepLinear as DeepLinear,
)
from .maps import (
    Identity as Identity,
)
from .maps import (
    OrthogonalFourier as OrthogonalFourier,
)
from .maps import (
    RandomFourier as RandomFourier,
)
from .maps import (
    UserMap as UserMap,
)
from .maps import (
    make_map as make_map,
)
from .options import DistillOptions as DistillOptions
from .pipeline import Distillation as Distillation
from .pipeline import distill as distill
from .ridge.feature_gram import fit_features as fit_features
from .ridge.path import (
    RidgePath as RidgePath,
)
from .ridge.path import (
    default_lambdas as default_lambdas,
)
from .ridge.path import (
    fit_ridge as fit_ridge,
)
from .ridge.path import (
    ridge_path as ridge_path,
)
from .ridge.statistics import RidgeStatistics as RidgeStatistics
