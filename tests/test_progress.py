"""What is seen of a run while it computes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from krrdistill.common.progress import IterationFacts, Listener, Stopwatch

pytest.importorskip("typer", reason="the cli extra is not installed")

from krrdistill.apps.cli import main
from krrdistill.apps.cli.progress import StageBars, StageLines, shown_facts

pytestmark = pytest.mark.usefixtures("undrawn_pages")

KIP = ["kip", "--backend", "array", "--iterations", "12", "--evaluate-every", "4", "--out", "o"]


class Clock:
    """Seconds that the test decides."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def facts(iteration: int, *, evaluated: bool = True) -> IterationFacts:
    return IterationFacts(
        iteration=iteration,
        iterations=100,
        batch_loss=0.25,
        train_loss=0.5,
        val_accuracy=0.875,
        evaluated=evaluated,
        seconds_per_iteration=0.0125 if iteration else None,
    )


@pytest.fixture
def shown() -> tuple[list[str], Clock, StageLines]:
    said, clock = list[str](), Clock()
    return said, clock, StageLines(said.append, clock=clock)


def test_stage_that_lasts_says_how_long_it_will(shown: Any) -> None:
    said, clock, lines = shown
    for stage in ("load", "statistics"):
        start = clock.now
        for clock.now, fraction in ((start, 0.0), (start + 9.0, 0.5), (start + 9.5, 1.0)):
            lines(stage, fraction)
    assert said == []  # neither lasted ten seconds
    start = clock.now
    lines("evaluate", 0.0)
    for clock.now, fraction in ((start + 10.0, 0.25), (start + 19.0, 0.3), (start + 20.0, 0.5), (start + 40.0, 1.0)):
        lines("evaluate", fraction)
    assert said == [
        "evaluate: 25 %, 10 s so far, about 30 s to go", "evaluate: 50 %, 20 s so far, about 20 s to go",
    ]  # fmt: skip


def test_stage_that_is_known_to_last_says_so_at_once(shown: Any) -> None:
    said, clock, lines = shown
    lines("evaluate", 0.0)
    for clock.now, fraction in ((0.5, 0.01), (2.0, 0.04), (3.0, 0.05)):
        lines("evaluate", fraction)
    assert said == ["evaluate: 4 %, 2 s so far, about 48 s to go"]


def test_searches_do_not_promise_an_end(shown: Any) -> None:
    said, clock, lines = shown
    lines("construct", 0.0)
    for clock.now, fraction in ((2.0, 0.04), (11.0, 0.5)):
        lines("construct", fraction)
    assert said == ["construct: 50 %, 11 s so far"]


def test_stage_that_reports_nothing_is_said_by_ticks(shown: Any) -> None:
    said, clock, lines = shown
    lines("ridge", 0.0)
    for clock.now in (5.0, 11.0, 12.0, 22.0):
        lines.tick()
    lines("ridge", 1.0)
    clock.now = 60.0
    lines.tick()
    assert said == ["ridge: 11 s so far", "ridge: 22 s so far"]


def test_iteration_is_said_at_its_first_evaluation_and_then_once_in_ten_seconds(shown: Any) -> None:
    said, clock, lines = shown
    for clock.now, iteration, evaluated in ((0.0, 0, True), (2.0, 10, True), (10.0, 20, True), (20.5, 25, False)):
        lines("optimize", iteration / 100)
        lines.facts("optimize", facts(iteration, evaluated=evaluated))
    assert said == [
        "optimize: iteration 0 of 100, loss 0.5 per training sample, validation accuracy 87.50 %",
        (
            "optimize: iteration 20 of 100, loss 0.5 per training sample, validation accuracy 87.50 %, 12.5 ms per "
            "iteration, about 40 s to go"
        ),
        (
            "optimize: iteration 25 of 100, loss of the batch 0.25 per training sample, validation accuracy 87.50 %, "
            "12.5 ms per iteration, about 61.5 s to go"
        ),
    ]


def test_terminal_shows_an_iteration_under_the_bars() -> None:
    from rich.progress import Progress
    from rich.text import Text

    bars, line = Progress(), Text()
    shown = StageBars(bars, line)
    shown("optimize", 0.1)
    shown.facts("optimize", facts(10))
    assert line.plain == shown_facts(facts(10))
    shown("evaluate", 0.0)
    assert line.plain == ""
    assert [task.completed for task in bars.tasks] == [1.0, 0.0]


def test_facts_reach_listeners_and_leave_plain_callables_alone() -> None:
    class Keeper(Listener):
        kept: IterationFacts | None = None

        def facts(self, stage: str, facts: IterationFacts) -> None:
            self.kept = facts

    keeper = Keeper()
    for progress in (keeper, lambda stage, fraction: None, None):
        Stopwatch(progress).facts("optimize", facts(1))
    assert keeper.kept == facts(1)


def test_kip_without_a_terminal_prints_loss_and_accuracy_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("krrdistill.apps.cli.progress.EVERY", 0.0)
    assert main([*KIP, "--json"]) == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    lines = [line for line in captured.err.splitlines() if "iteration" in line]
    assert lines[0].startswith("krrdistill: optimize: iteration 0 of 12, loss ")
    assert any("loss of the batch" in line for line in lines)
    last = lines[-1]
    assert f"validation accuracy {100 * report['last']['val_accuracy']:.2f} %" in last
    assert "iteration 12 of 12" in last
    assert "per iteration" in last
