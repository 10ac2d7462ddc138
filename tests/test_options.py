"""Options declared by fields: what is checked, how they are read, and the words that ask for them again."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import krrdistill as kd
from krrdistill.common.options import (
    as_words,
    build,
    check_options,
    common_values,
    declared_options,
    described,
    did_you_mean,
    option,
    option_of,
    read_value,
    shown_value,
)
from krrdistill.options import DistillOptions


@dataclass(frozen=True, kw_only=True)
class Cut:
    blade: str = option("short", "Which blade.", choices=("short", "long"))

    def __post_init__(self) -> None:
        check_options("cut", self)


@described
@dataclass(frozen=True, kw_only=True)
class Wood:
    """What to do with wood."""

    count: int = option(1, "Pieces.", minimum=1, below=1 << 64, cli="pieces")
    length: float | None = option(None, "In metres.", above=0, default_text="as it grew")
    share: float = option(0.5, "Of the bark.", above=0, below=1)
    wet: float = option(0.0, "Water.", minimum=0, maximum=2)
    angle: float | str = option(0.0, "In degrees.", choices=("auto",), minimum=0)
    sizes: Sequence[float] | None = option(None, "Of sieves.", above=0)
    rings: int = option(7, "Years.", above=2, maximum=9)
    tilt: float = option(0.0, "In degrees.", below=90)
    sawn: bool = option(False, "By a saw.")
    stacked: bool = option(True, "In the yard.")
    cut: Cut = field(default_factory=Cut)

    def __post_init__(self) -> None:
        check_options("wood", self)


@pytest.mark.parametrize(
    ("given", "kind", "expected"),
    [
        ({"count": 0}, ValueError, r"wood: count must be >= 1 and < 2\^64, got 0"),
        ({"count": 1 << 64}, ValueError, r"wood: count must be >= 1 and < 2\^64, got 18446744073709551616"),
        ({"count": True}, TypeError, "wood: count must be an integer, got True"),
        ({"count": np.bool_(True)}, TypeError, "wood: count must be an integer"),
        ({"count": 1.0}, TypeError, "wood: count must be an integer, got 1.0"),
        ({"count": None}, TypeError, "wood: count must be an integer, got None"),
        ({"length": 0}, ValueError, "wood: length must be finite and > 0, got 0.0"),
        ({"length": math.inf}, ValueError, "wood: length must be finite and > 0, got inf"),
        ({"length": 10**400}, ValueError, "wood: length must be finite and > 0, got inf"),
        ({"length": "2"}, TypeError, "wood: length must be a number, got '2'"),
        ({"share": 1.0}, ValueError, r"wood: share must be finite and > 0 and < 1, got 1.0"),
        ({"share": math.nan}, ValueError, r"wood: share must be finite and > 0 and < 1, got nan"),
        ({"wet": -1}, ValueError, "wood: wet must be finite and >= 0 and <= 2, got -1.0"),
        ({"wet": 3}, ValueError, "wood: wet must be finite and >= 0 and <= 2, got 3.0"),
        ({"angle": "flat"}, ValueError, "wood: angle must be a number, or one of auto; got 'flat'"),
        ({"angle": -1}, ValueError, "wood: angle must be finite and >= 0, got -1.0"),
        ({"sizes": True}, TypeError, "wood: sizes must be numbers, got True"),
        ({"sizes": "1,2"}, TypeError, "wood: sizes must be numbers, got '1,2'"),
        ({"sizes": [1, -1]}, ValueError, "wood: sizes must be finite and > 0, got -1.0"),
        ({"rings": 2}, ValueError, "wood: rings must be > 2 and <= 9, got 2"),
        ({"rings": 10}, ValueError, "wood: rings must be > 2 and <= 9, got 10"),
        ({"tilt": 90}, ValueError, "wood: tilt must be finite and < 90, got 90.0"),
        ({"sawn": "yes"}, TypeError, "wood: sawn must be true or false, got 'yes'"),
        ({"sawn": 1}, TypeError, "wood: sawn must be true or false, got 1"),
    ],
)
def test_bad_values_are_named(given: dict[str, Any], kind: type[Exception], expected: str) -> None:
    with pytest.raises(kind, match=expected):
        Wood(**given)
    with pytest.raises(ValueError, match="cut: blade must be one of short, long; got 3"):
        Cut(blade=3)  # type: ignore[arg-type]


def test_numpy_values_become_plain_ones() -> None:
    wood = Wood(count=np.int64(3), length=np.float32(0.5), sizes=np.array([1.0, 2.0]), sawn=np.bool_(True))
    assert [type(value) for value in (wood.count, wood.length, wood.sawn)] == [int, float, bool]
    assert wood.sizes == (1.0, 2.0)
    assert wood == Wood(count=3, length=0.5, sizes=[1, 2], sawn=True)


def test_words_are_read_as_the_field_says() -> None:
    declared = {each.name: each for each in declared_options(Wood)}
    assert list(declared) == [
        "count",
        "length",
        "share",
        "wet",
        "angle",
        "sizes",
        "rings",
        "tilt",
        "sawn",
        "stacked",
        "blade",
    ]
    words = {"count": "3", "angle": "AUTO", "sizes": "1, 2e1", "blade": "Long"}
    values = {name: read_value(declared[name].flag, declared[name], text) for name, text in words.items()}
    assert build(Wood, values) == Wood(count=3, angle="auto", sizes=(1.0, 20.0), cut=Cut(blade="long"))
    with pytest.raises(ValueError, match=r"--pieces must be >= 1 and < 2\^64, got -1"):
        read_value(declared["count"].flag, declared["count"], "-1")


def test_words_ask_for_what_is_not_the_default() -> None:
    wood = Wood(count=3, sizes=(1.0, 0.1), sawn=True, stacked=False, cut=Cut(blade="long"))
    assert as_words(Wood()) == []
    assert as_words(wood) == ["--pieces", "3", "--sizes", "1,0.1", "--sawn", "--no-stacked", "--blade", "long"]
    assert as_words(wood, always=("wet",), never=("sizes", "sawn", "stacked", "blade")) == [
        "--pieces",
        "3",
        "--wet",
        "0",
    ]


def test_an_option_of_another_dataclass_keeps_its_declaration() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Log:
        count: int = option_of(Wood, "count", default=5, text="Logs.")

    (declared,) = declared_options(Log)
    assert (declared.default, declared.option.text, declared.flag) == (5, "Logs.", "--pieces")
    assert declared.option.minimum == 1
    assert common_values(Log(), Wood) == {"count": 5}


def test_texts_list_the_choices() -> None:
    declared = {each.name: each.option for each in declared_options(kd.DistillOptions)}
    assert declared["store"].text == "Number format of the inputs in the file: float64, float32, float16, uint8."


def test_docstrings_name_every_option() -> None:
    assert "    length : default as it grew\n        In metres.\n" in str(Wood.__doc__)
    for each in declared_options(kd.DistillOptions):
        assert f"    {each.name} : " in str(kd.DistillOptions.__doc__)


def test_shown_values_are_short_whatever_they_are() -> None:
    nested: Any = [1] * 9
    for _ in range(9):
        nested = [nested] * 9
    for value in (nested, "a" * 10**6, 1 << 10**6, {str(n): nested for n in range(99)}, object()):
        assert len(shown_value(value)) < 200


@pytest.mark.parametrize(("word", "nearest"), [("minst", "mnist"), ("FCN", "FCNN"), ("fcnn", "FCNN"), ("xyz", None)])
def test_a_word_near_to_a_known_one_is_answered_with_it(word: str, nearest: str | None) -> None:
    assert did_you_mean(word, ("identity", "FCNN", "mnist")) == (f"; did you mean {nearest!r}?" if nearest else "")


@pytest.mark.parametrize(
    ("call", "meant"),
    [
        (lambda: kd.load_dataset("minst"), "'mnist'"),
        (lambda: kd.make_map("FCN", np.ones((2, 3))), "'FCNN'"),
        (lambda: DistillOptions(noise="gausian"), "'gaussian'"),
    ],
)
def test_misspelt_names_are_refused_with_the_one_that_was_meant(call: Callable[[], object], meant: str) -> None:
    with pytest.raises((kd.DataError, ValueError), match=f"did you mean {meant}"):
        call()
