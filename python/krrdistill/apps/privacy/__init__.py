"""What a distilled set reveals, and what noise a release needs (docs/privacy.md)."""

from krrdistill.apps.privacy.audit import Neighbours, Reconstruction, nearest_neighbours, noise_deviation, reconstruct
from krrdistill.apps.privacy.clipping import ClippedStatistics, clipped_statistics
from krrdistill.apps.privacy.mechanisms import (
    MECHANISMS,
    STATISTICS_SENSITIVITY,
    PrivateModel,
    default_lambda,
    gaussian_noise_multiplier,
    output_sensitivity,
    perturb,
    secret_generator,
)
from krrdistill.apps.privacy.release import GUARANTEE, PrivateRelease, ReleaseOptions, private_release
from krrdistill.apps.privacy.report import audit_file, digest, theorem_for_data
from krrdistill.apps.privacy.theorem import LIMITS, Condition, PrivacyBudget, TheoremNoise, theorem_noise

__all__ = [
    "GUARANTEE",
    "LIMITS",
    "MECHANISMS",
    "STATISTICS_SENSITIVITY",
    "ClippedStatistics",
    "Condition",
    "Neighbours",
    "PrivacyBudget",
    "PrivateModel",
    "PrivateRelease",
    "Reconstruction",
    "ReleaseOptions",
    "TheoremNoise",
    "audit_file",
    "clipped_statistics",
    "default_lambda",
    "digest",
    "gaussian_noise_multiplier",
    "nearest_neighbours",
    "noise_deviation",
    "output_sensitivity",
    "perturb",
    "private_release",
    "reconstruct",
    "secret_generator",
    "theorem_for_data",
    "theorem_noise",
]
