"""Examples that are programs of their own run, and show what they claim (those of the gallery: test_gallery.py)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import tolerances

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_federated_flower() -> None:
    pytest.importorskip("flwr", reason="flwr[simulation] is not installed")
    command = [sys.executable, str(EXAMPLES / "federated_flower.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found = re.search(r"relative difference ([-+.e0-9]+[0-9])", done.stdout)
    assert found is not None, done.stdout
    assert float(found.group(1)) <= tolerances.TRAVELLED
