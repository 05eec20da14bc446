"""Progress lines of a long run: one immediately, then one every ten seconds, with the remaining time of the run."""

from __future__ import annotations

import io

import pytest
from dcformat_cli.progress import ProgressBar, ProgressLines
from dcformat_pruning.meter import Meter, StageProgress
from rich.console import Console
from rich.live import Live


class Clock:
    """A clock that the test moves forward."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_lines_of_a_run_of_two_stages(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ProgressLines(clock)
    meter = Meter(lines, [("train", 10.0), ("prune", 0.0), ("retrain", 10.0)])
    meter.begin(0)
    for done in range(1, 101):
        clock.now += 0.25
        meter.prepare(20.0, "images", done, 100)
    for batch in range(1, 21):
        clock.now += 1
        meter("train", batch / 10, 2, {} if batch < 10 else {"loss": 0.5})
    meter.begin(1)
    meter.begin(2)
    clock.now += 4000
    meter("retrain", 1, 1, {"loss": 0.25})
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "train (stage 1 of 3), 0:00 elapsed",
        "train (stage 1 of 3): 40 of 100 images, 0:10 elapsed, about 0:40 left",
        "train (stage 1 of 3): 80 of 100 images, 0:20 elapsed, about 0:30 left",
        "train (stage 1 of 3): 100 of 100 images, 0:25 elapsed, about 0:25 left",
        "train (stage 1 of 3): epoch 2 of 2 at 0 %, loss 0.5, 0:35 elapsed, about 0:21 left",
        "train (stage 1 of 3): epoch 2 of 2, loss 0.5, 0:45 elapsed, about 0:15 left",
        "prune (stage 2 of 3), 0:45 elapsed, about 0:15 left",
        "retrain (stage 3 of 3), 0:45 elapsed, about 0:15 left",
        "retrain (stage 3 of 3): epoch 1 of 1, loss 0.25, 1:07:25 elapsed",
    ]


def test_two_lines_on_a_narrow_terminal(clock: Clock) -> None:
    out = io.StringIO()
    console = Console(file=out, width=60, force_terminal=True, color_system=None)
    with Live(console=console, auto_refresh=False) as live:
        meter = Meter(ProgressBar(live, clock), [("fine-tune", 30.0), ("settle", 10.0)])
        meter.begin(0)
        clock.now += 3000
        meter("fine-tune", 2.5, 3, {"loss": 0.12345})
        live.refresh()
        shown = out.getvalue().splitlines()
        assert shown[-2].endswith("[########......] 62 %, 50:00 elapsed, about 30:00 left")
        assert shown[-1].rstrip() == "fine-tune (stage 1 of 2): epoch 3 of 3 at 50 %, loss 0.1235"
        meter.begin(1)
    assert "fine-tune (stage 1 of 2): epoch 3 of 3 at 50 %, loss 0.1235," in out.getvalue()


def test_a_line_is_printed_at_least_every_ten_seconds(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    meter = Meter(ProgressLines(clock), [("train", 1.0)])
    meter.begin(0)
    for batch in range(1, 1000):
        clock.now += 0.5
        meter("train", batch / 1000, 1, {})
    assert len(capsys.readouterr().err.splitlines()) == 1 + 49


def test_stages_that_were_done_before_take_no_part_in_the_estimate() -> None:
    seen: list[StageProgress] = []
    meter = Meter(seen.append, [("train", 90.0), ("prune", 10.0)])
    meter.begin(1)
    meter("prune", 1, 2, {})
    assert [(step.stage, step.number, step.share) for step in seen] == [("prune", 2, 0.0), ("prune", 2, 0.5)]


def test_rows_that_were_done_before_take_no_part_in_the_estimate() -> None:
    seen: list[StageProgress] = []
    meter = Meter(seen.append, [("dense", 30.0), ("prunings", 100.0), ("dense", 30.0), ("prunings", 100.0)])
    meter.begin(1, saved=0.8)
    meter.count("prunings", 9, 10, {})
    meter.begin(2)
    assert [step.done for step in seen] == [0, 9, 0]
    # 20 of the first 100 are left, and the 130 of the other network.
    assert [step.share for step in seen] == pytest.approx([0, 10 / 150, 20 / 150])
