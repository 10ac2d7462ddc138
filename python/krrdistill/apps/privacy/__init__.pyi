from .audit import (
    Neighbours as Neighbours,
)
from .audit import (
    Reconstruction as Reconstruction,
)
from .audit import (
    nearest_neighbours as nearest_neighbours,
)
from .audit import (
    noise_deviation as noise_deviation,
)
from .audit import (
    reconstruct as reconstruct,
)
from .budget import MECHANISMS as MECHANISMS
from .budget import PrivacyBudget as PrivacyBudget
from .budget import ReleaseOptions as ReleaseOptions
from .clipping import ClippedStatistics as ClippedStatistics
from .clipping import clipped_statistics as clipped_statistics
from .ledger import LedgerTotal as LedgerTotal
from .ledger import charge as charge
from .ledger import total_epsilon as total_epsilon
from .mechanisms import (
    STATISTICS_SENSITIVITY as STATISTICS_SENSITIVITY,
)
from .mechanisms import (
    PrivateModel as PrivateModel,
)
from .mechanisms import (
    default_lambda as default_lambda,
)
from .mechanisms import (
    discrete_noise_multiplier as discrete_noise_multiplier,
)
from .mechanisms import (
    gaussian_delta as gaussian_delta,
)
from .mechanisms import (
    gaussian_noise_multiplier as gaussian_noise_multiplier,
)
from .mechanisms import (
    output_sensitivity as output_sensitivity,
)
from .mechanisms import (
    perturb as perturb,
)
from .mechanisms import (
    private_statistics as private_statistics,
)
from .mechanisms import (
    private_weights as private_weights,
)
from .mechanisms import (
    solver_error as solver_error,
)
from .public import PUBLIC as PUBLIC
from .public import released_fields as released_fields
from .public import unexplained as unexplained
from .release import GUARANTEE as GUARANTEE
from .release import PrivateRelease as PrivateRelease
from .release import default_norm_bound as default_norm_bound
from .release import private_release as private_release
from .release import public_inputs as public_inputs
from .report import audit_file as audit_file
from .report import theorem_for_data as theorem_for_data
from .theorem import (
    LIMITS as LIMITS,
)
from .theorem import (
    Condition as Condition,
)
from .theorem import (
    TheoremNoise as TheoremNoise,
)
from .theorem import (
    theorem_noise as theorem_noise,
)
