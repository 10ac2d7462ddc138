"""The releases of one data set and what they spend together, in a JSON file.

Every release is Gaussian noise, of rho = 1 / (2 multiplier^2) in zero-concentrated differential privacy. rho adds, and
releases with rho_1, rho_2, ... are together as private as one with their sum.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from krrdistill.apps.privacy.budget import PrivacyBudget
from krrdistill.apps.privacy.mechanisms import gaussian_delta, least_above
from krrdistill.apps.privacy.noise import SLACK
from krrdistill.common.documents import UNFIT, check_plain, parse_json, read_bounded
from krrdistill.common.files import lock, write_atomically
from krrdistill.errors import DataError

__all__ = ["LedgerTotal", "charge", "total_epsilon"]

FORMAT = "krrdistill-ledger-1"


@dataclass(frozen=True)
class LedgerTotal:
    """What all releases in a ledger spend: their number, the sum of rho, and epsilon for the delta of the last."""

    releases: int
    rho: float
    epsilon: float


def total_epsilon(rhos: Sequence[float], delta: float) -> float:
    """The least epsilon for which releases with these rho are together (epsilon, delta)-differentially private.

    By the formula of ``gaussian_noise_multiplier``, with SLACK of each release kept back.
    """
    kept = 1.0 - SLACK * len(rhos)
    multiplier = (2.0 * sum(rhos)) ** -0.5
    return least_above(0.0, lambda epsilon: not gaussian_delta(epsilon, multiplier) > delta * kept) / kept


def charge(
    path: Path, dataset: str, n: int, mechanism: str, budget: PrivacyBudget, rho: float, limit: float | None
) -> LedgerTotal:
    """Enter a release before its noise is drawn: what fails later is spent all the same.

    Parameters
    ----------
    path : the ledger, made where it does not exist
    dataset, n : of the data; a ledger is of one data set
    limit : largest total epsilon, for the delta of this release

    Raises
    ------
    DataError
        When the total would exceed ``limit``, and for a file that is no ledger of this data set, or in use.
    """
    path = path.resolve()  # a link stays one: whoever else has the file counts this release, too
    with _locked(path):
        new: dict[str, Any] = {"format": FORMAT, "dataset": dataset, "n": n, "releases": []}
        ledger = _read(path) if path.exists() else new
        if path.exists() and path.stat().st_nlink > 1:
            raise DataError(
                f"{path}: is one file by several names (hard links), and the others would not get this release: keep "
                "one name, symbolic links are followed"
            )
        if (ledger["dataset"], ledger["n"]) != (dataset, n):
            held = f"{ledger['dataset']} with n = {ledger['n']}"
            raise DataError(f"{path}: is the ledger of {held}, not of {dataset} with n = {n}: give another --ledger")
        rhos = [*(release["rho"] for release in ledger["releases"]), rho]
        total = LedgerTotal(len(rhos), sum(rhos), total_epsilon(rhos, budget.delta))
        if limit is not None and total.epsilon > limit * (1.0 + 1e-9):
            raise DataError(
                f"{path}: with this release the total would be epsilon {total.epsilon:.4g} for delta "
                f"{budget.delta:g}, more than the {limit:g} of --budget-epsilon; nothing was released"
            )
        entry = {"mechanism": mechanism, "epsilon": budget.epsilon, "delta": budget.delta, "rho": rho}
        ledger["releases"].append(entry)
        text = json.dumps(ledger, indent=1) + "\n"
        write_atomically(path, lambda stream: stream.write(text.encode()))
    return total


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Nobody else enters a release meanwhile. The file of the lock stays."""
    if not path.parent.is_dir():
        raise DataError(f"{path}: the folder {path.parent} does not exist; make it first")
    locked = path.with_name(f".{path.name}.lock")
    check_plain(locked)
    with locked.open("a", encoding="ascii") as stream:
        try:
            lock(stream.fileno())
        except OSError as error:
            raise DataError(f"{path}: another release is entering itself; try again when it has") from error
        yield


def _read(path: Path) -> dict[str, Any]:
    try:
        ledger = parse_json("it", read_bounded(path))
        whole = (
            ledger["format"] == FORMAT
            and isinstance(ledger["dataset"], str)
            and isinstance(ledger["n"], int)
            and all(isinstance(each["rho"], float) and 0.0 < each["rho"] < 1e300 for each in ledger["releases"])
        )
    except (OSError, *UNFIT) as error:
        raise DataError(f"{path}: not a readable ledger of releases ({error})") from error
    if not whole:
        raise DataError(f"{path}: not a ledger of releases (format {FORMAT})")
    return dict(ledger)
