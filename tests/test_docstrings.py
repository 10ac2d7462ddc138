"""Public docstrings: numpydoc finds their sections, and every parameter in them."""

from __future__ import annotations

import inspect

import pytest

import krrdistill as kd

pytest.importorskip("numpydoc", reason="numpydoc is not installed")
from numpydoc.validate import validate

# No docstring; no summary; parameters undocumented, unknown, without a type; results undocumented.
OBJECTS = {"GL08", "SS01", "SS03", "PR01", "PR02", "PR04", "PR10", "RT01", "RT02"}
MEMBERS = {"GL08", "SS01", "SS03", "PR02"}
NAMES = sorted(name for name in kd.__all__ if callable(getattr(kd, name)))


def members(name: str) -> list[str]:
    found = vars(getattr(kd, name)).items() if inspect.isclass(getattr(kd, name)) else ()
    kinds = (property, staticmethod, classmethod)
    return [
        f"krrdistill.{name}.{member}"
        for member, value in found
        if not member.startswith("_") and (inspect.isfunction(value) or isinstance(value, kinds))
    ]


@pytest.mark.parametrize("name", NAMES)
def test_public_docstring_has_its_sections(name: str) -> None:
    found = [(f"krrdistill.{name}", error) for error in validate(f"krrdistill.{name}")["errors"] if error[0] in OBJECTS]
    for member in members(name):
        found += [(member, error) for error in validate(member)["errors"] if error[0] in MEMBERS]
    assert not found
