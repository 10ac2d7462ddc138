"""Options and fixtures of the pytest-benchmark suites, and the table at their end."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import krrdistill as kd
from ceilings import Ceilings, measure
from harness import Benchmark, Recorder, Row, table
from machine import machine_facts, one_line
from problem import SIZES, Problem, problem_of_size, training_statistics

_ROWS: pytest.StashKey[list[Row]] = pytest.StashKey()
_CEILINGS: pytest.StashKey[Ceilings] = pytest.StashKey()
_SOURCE: pytest.StashKey[str] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """--size, --data-dir and --results."""
    group = parser.getgroup("krrdistill")
    group.addoption("--size", choices=tuple(SIZES), default="small", help="data set and number of rows (small)")
    group.addoption("--data-dir", type=Path, default=None, help="real data sets (KRRDISTILL_DATA; else made-up images)")
    group.addoption("--results", type=Path, default=None, help="folder to write operations-<size>.json to")


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """--benchmark-json says what the machine is, not what it is called."""
    machine_info.clear()
    machine_info.update(machine_facts())


def pytest_benchmark_update_commit_info(config: pytest.Config, commit_info: dict[str, Any]) -> None:
    """The commit, without the names of folder and branch."""
    for name in ("project", "branch"):
        commit_info.pop(name, None)


def pytest_configure(config: pytest.Config) -> None:
    """Rows of the final table gather here."""
    config.stash[_ROWS] = []


@pytest.fixture(scope="session")
def problem(pytestconfig: pytest.Config) -> Problem:
    """The arrays of --size."""
    found = problem_of_size(pytestconfig.getoption("--size"), pytestconfig.getoption("--data-dir"))
    pytestconfig.stash[_SOURCE] = found.source
    return found


@pytest.fixture(scope="session")
def ceilings(pytestconfig: pytest.Config, problem: Problem) -> Ceilings:
    """Of this process, before anything else is timed: products at p = 3072 (small: 1024), factorisations at p."""
    p = 1024 if pytestconfig.getoption("--size") == "small" else 3072
    pytestconfig.stash[_CEILINGS] = measure(p, factor_p=problem.dataset.input_dim, repeats=3)
    return pytestconfig.stash[_CEILINGS]


@pytest.fixture(scope="session")
def statistics(problem: Problem) -> Callable[[str], kd.RidgeStatistics]:
    """Statistics of the whole training set under a kernel's map, computed once."""
    return functools.cache(lambda kernel: training_statistics(problem, kernel))


@pytest.fixture(scope="session")
def facts(problem: Problem) -> dict[str, Any]:
    """What is recorded with every row."""
    return {**machine_facts(), "data": problem.source}


@pytest.fixture
def record(benchmark: Benchmark, ceilings: Ceilings, facts: dict[str, Any], pytestconfig: pytest.Config) -> Recorder:
    """Times a call and keeps its row."""
    return Recorder(benchmark, ceilings, facts, pytestconfig.stash[_ROWS])


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Prints the table, and writes it where --results says."""
    rows = config.stash.get(_ROWS, [])
    if not rows:
        return
    ceilings = config.stash[_CEILINGS]
    terminalreporter.section("operations, as a fraction of the ceiling of this process")
    terminalreporter.write_line(f"{config.stash[_SOURCE]}; {one_line(machine_facts())}")
    for line in table(rows, ceilings):
        terminalreporter.write_line(line)
    folder = config.getoption("--results")
    if folder is None:
        return
    content = {
        "machine": machine_facts(),
        "data": config.stash[_SOURCE],
        "ceilings": asdict(ceilings),
        "rows": [{**asdict(row), "fraction": row.fraction} for row in rows],
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"operations-{config.getoption('--size')}.json"
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
