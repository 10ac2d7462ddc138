"""The record of a run: what goes to JSON comes back, and what no run writes is refused by name."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tolerances
from krrdistill.artifact.record import (
    CertificateNumbers,
    ClosedFormRecord,
    ErrorCurve,
    KipPointRecord,
    KipRecord,
    Likeness,
    RunRecord,
    Score,
    Solution,
    from_json,
    to_json,
)
from krrdistill.errors import DataError

POINT = KipPointRecord(iteration=3, train_loss=0.5, val_accuracy=0.25, test_accuracy=None)
FACTS: dict[str, Any] = {
    "dataset": "digits", "kernel": "FCNN", "ipc": 1, "init": "real", "seed": 2**64 - 1, "store": "float32",
    "n_train": 100, "n_val": 5, "n_test": 20, "d": 64, "p": 64, "k": 10, "m": 10, "lambda_": 10.0, "lambda_s": 0.0,
    "range_scale": 1.0, "criterion": "accuracy", "val_accuracy": 0.9, "original": Score(test_accuracy=0.9),
    "distilled": Score(test_accuracy=None, test_per_target={"r2": (0.5, 0.7)}),
    "certificate": CertificateNumbers(weight_relative_error=1e-3, weight_cosine=1.0, prediction_agreement=1.0,
                                      condition=None),
    "realism": Likeness(mse=None, psnr=None, out_of_range=0.5, asked=None), "value_range": (0.0, 16.0),
    "peak_memory_bytes": 1, "backend": "array", "precision": "float32", "seconds": {"ridge": 0.5, "total": 1.0},
    "floor_seconds": {"statistics": None}, "warnings": ("one",), "command": "krrdistill distill",
    "solution": Solution(method="approximate", outside_range=None, steps=4),
    "labels_only": ErrorCurve(m=(1, 2), weight_relative_error=(0.5, None)),
}  # fmt: skip
RUN = RunRecord(**FACTS)
KIP = KipRecord(
    **FACTS, variant="gram", iterations=5, lr=0.1, best=POINT, last=POINT, setup_seconds=0.1,
    seconds_per_iteration=0.01, closed_form=ClosedFormRecord(seconds=0.5, train_loss=0.1, val_accuracy=0.9),
)  # fmt: skip


@pytest.mark.parametrize("record", [RUN, KIP, replace(KIP, closed_form=None, solution=None)])
def test_record_comes_back_from_json(record: RunRecord) -> None:
    document = json.loads(json.dumps(to_json(record), allow_nan=False))
    assert from_json(type(record), document) == record
    assert from_json(type(record), {**document, "unknown": [1]}) == record


def test_report_of_an_older_version_is_read() -> None:
    document = to_json(RUN)
    for name in ("asked", "zca"):
        del document[name]
    assert from_json(RunRecord, document) == RUN


def test_json_has_the_keys_that_readers_know() -> None:
    document = to_json(RUN)
    assert document["lambda"] == 10.0
    assert document["certificate"]["prediction_agreement"] == 1.0
    assert document["original"] == {"test_accuracy": 0.9}
    assert "lambda_" not in document
    assert "figure" not in document, "fields that are None by default are left out"
    assert document["realism"] == {"mse": None, "psnr": None, "out_of_range": 0.5, "asked": None}


def test_numbers_that_json_has_not_become_null() -> None:
    numbers = CertificateNumbers(
        weight_relative_error=float("inf"), weight_cosine=float("nan"), prediction_agreement=1.0, condition=2.0
    )
    document = to_json(replace(RUN, certificate=numbers))["certificate"]
    assert document == {
        "weight_relative_error": None,
        "weight_cosine": None,
        "prediction_agreement": 1.0,
        "condition": 2.0,
    }


def test_facts_that_follow_from_others() -> None:
    assert RUN.exact
    assert not replace(RUN, store="float64").exact
    unknown = replace(RUN.certificate, weight_relative_error=None)
    assert not replace(RUN, certificate=unknown).exact
    title = "digits, FCNN, 1 per class, real start, zca, realism 0.5, no stratify, seed 7"
    run = replace(RUN, seed=7, asked={"zca": "", "realism": "0.5", "no-stratify": ""})
    assert run.title == title
    assert replace(KIP, seed=7, asked=run.asked).title == f"{title}, KIP (gram)"
    assert RUN.title == f"digits, FCNN, 1 per class, real start, seed {2**64 - 1}"
    assert len(replace(RUN, asked={"lambdas": "1.0," * 99}).title) < 90
    assert (RUN.method, KIP.method) == ("closed form", "KIP, gram, 5 steps")
    assert RUN.stages == {"ridge": 0.5}
    assert RUN.original.mean_r2 is None
    tolerances.assert_solve(RUN.distilled.mean_r2, 0.6)
    assert RUN.chosen_by.label == "validation accuracy (%)"
    assert replace(RUN, criterion="r2").chosen_by.best == "best R²"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ipc": None}, "ipc is None"),
        ({"ipc": 1.0}, "ipc is 1.0"),
        ({"ipc": True}, "ipc is True"),
        ({"ipc": 2**128}, "ipc is 3402"),
        ({"lambda": "1"}, "lambda is '1'"),
        ({"lambda": 10**400}, "lambda is 1000"),
        ({"lambda": float("nan")}, "lambda is nan"),
        ({"intercept": 1}, "intercept is 1"),
        ({"dataset": ["a"]}, r"dataset is \['a'\]"),
        ({"original": {}}, "original.test_accuracy is missing"),
        ({"original": {"test_accuracy": 1, "test_per_target": {"r2": ["a"]}}}, "original.test_per_target.r2 is 'a'"),
        ({"seconds": {"total": 1, "ridge": None}}, "seconds.ridge is None"),
        ({"seconds": []}, r"seconds is \[\]"),
        ({"value_range": [0, 1, 2]}, r"value_range is \[0, 1, 2\]"),
        ({"value_range": [2, 1]}, "value_range must be two numbers, the lower one first"),
        ({"labels_only": {"m": [], "weight_relative_error": []}}, "labels_only: m and weight_relative_error"),
        ({"machine": {"CPUs": 3}}, "machine.CPUs is 3"),
    ],
)
def test_what_no_run_writes_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_json(RunRecord, {**to_json(RUN), **change})


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_json_is_a_record_or_a_data_error(data: st.DataObject) -> None:
    document = to_json(KIP)
    for name in data.draw(st.lists(st.sampled_from(sorted(document)), min_size=1, max_size=3)):
        holder, key = document, name
        if isinstance(document[name], dict) and document[name] and data.draw(st.booleans()):
            holder, key = document[name], data.draw(st.sampled_from(sorted(document[name])))
        holder[key] = data.draw(values)
    try:
        record = from_json(KipRecord, document)
    except DataError:
        return
    json.dumps(to_json(record), allow_nan=False)
