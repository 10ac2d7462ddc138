"""``krrdistill info``: what is there, what is missing, and how to get it."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import numpy as np
import pytest
import scipy

import krrdistill.apps.info
import krrdistill.backends


def test_gather_tells_versions_backends_blas_and_extras() -> None:
    facts = krrdistill.apps.info.gather()
    assert facts["version"] == krrdistill.apps.info.__version__
    assert (facts["numpy"], facts["scipy"]) == (np.__version__, scipy.__version__)
    assert facts["backends"]["array"]["available"] is True
    assert set(facts["backends"]) == {"native", "numba", "array", "cuda"}
    assert facts["cpus"] >= facts["usable_cpus"] >= 1
    assert any(pool["kind"] == "blas" and pool["threads"] >= 1 for pool in facts["blas"])
    assert json.loads(json.dumps(facts)) == facts


def test_missing_extra_is_named_with_its_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "pooch" else real(name, *rest))
    extra = krrdistill.apps.info.gather()["extras"]["download"]
    assert extra == {
        "available": False,
        "missing": ["pooch"],
        "install": 'pip install "krrdistill[download]"',
    }


def test_torch_is_looked_up_and_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = importlib.util.find_spec("torch") is not None
    assert krrdistill.apps.info.gather()["torch"]["available"] is expected
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None)
    missing = krrdistill.apps.info.gather()["torch"]
    assert missing == {
        "available": False,
        "detail": "kip --variant published, kip --device cuda and krrdistill.interop.torch need it",
        "install": "pip install torch",
    }


def test_missing_backend_is_shown_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("typer", reason="the cli extra is not installed")
    from krrdistill.apps.cli import main

    status: dict[str, dict[str, Any]] = {
        "native": {"available": False, "detail": "no module _native", "remedy": "install a compiler"},
        "array": {"available": True, "detail": {"isas": ["base", "avx2"]}, "remedy": None},
    }
    monkeypatch.setattr(krrdistill.backends, "backend_status", lambda: status)
    assert main(["info"]) == 0
    printed = capsys.readouterr().out
    assert "no; no module _native; get it with: install a compiler" in printed
    assert "yes; isas base avx2" in printed


def test_a_backend_with_an_extra_is_listed_once(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("typer", reason="the cli extra is not installed")
    from krrdistill.apps.cli import main

    assert main(["info"]) == 0
    items = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert items.count("numba") == 1
    assert {"native", "cli", "data"} <= set(items)


def test_json_is_one_object_with_the_same_facts(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("typer", reason="the cli extra is not installed")
    from krrdistill.apps.cli import main

    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts.keys() == krrdistill.apps.info.gather().keys()
