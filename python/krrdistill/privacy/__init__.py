"""What a distilled set reveals, and what noise a release needs (docs/privacy.md)."""

from krrdistill.privacy.audit import Neighbours, Reconstruction, nearest_neighbours, noise_deviation, reconstruct
from krrdistill.privacy.clipping import ClippedStatistics, clipped_statistics
from krrdistill.privacy.theorem import LIMITS, Condition, PrivacyBudget, TheoremNoise, theorem_noise

__all__ = [
    "LIMITS",
    "ClippedStatistics",
    "Condition",
    "Neighbours",
    "PrivacyBudget",
    "Reconstruction",
    "TheoremNoise",
    "clipped_statistics",
    "nearest_neighbours",
    "noise_deviation",
    "reconstruct",
    "theorem_noise",
]
