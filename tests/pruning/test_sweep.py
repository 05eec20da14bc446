"""A sweep computes every point once, continues after an interruption, and finds the front."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

pytest.importorskip("optuna", reason="Optuna, which is not among the packages of the checks, is not installed")

from dcformat_pruning import sweep
from dcformat_pruning.sweep import Outcome, Point, SweepSettings

POINTS = sweep.grid(["magnitude", "Wanda"], [0.1, 0.05], [4, 8], [0])


def by_formula(points: Sequence[Point], settings: SweepSettings, directory: Path) -> Iterator[tuple[Point, Outcome]]:
    for point in points:
        bonus = 0.02 if point.criterion == "Wanda" else 0.0
        yield point, Outcome(int(1000 * point.density * point.clusters), 0.9 + bonus - point.density / point.clusters)


def test_a_grid_has_every_combination_once() -> None:
    assert len(POINTS) == 8 and POINTS[0] == Point("magnitude", 0.1, 4, 0)
    assert len(sweep.grid(["magnitude"], [0.1, 0.1], [4], [1, 2])) == 2
    for criteria, density, clusters, message in (
        ("x", 0.1, 4, "criterion"), ("magnitude", 0.0, 4, "density"), ("magnitude", 0.1, 1, "clusters"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            sweep.grid([criteria], [density], [clusters], [0])


@pytest.mark.slow
def test_an_interrupted_sweep_goes_on(tmp_path: Path) -> None:
    made = sweep.sweep(POINTS, SweepSettings(), tmp_path, by_formula)
    first = [next(made) for _ in range(3)]
    made.close()  # type: ignore[attr-defined]
    assert sweep.outcomes(tmp_path) == dict(first)
    rest = list(sweep.sweep(POINTS, SweepSettings(), tmp_path, by_formula))
    assert [point for point, _ in first + rest] == POINTS
    with pytest.raises(ValueError, match="expected a sweep with the same settings"):
        list(sweep.sweep(POINTS, SweepSettings(epochs=9), tmp_path, by_formula))


def test_the_front(tmp_path: Path) -> None:
    found = dict(by_formula(POINTS, SweepSettings(), tmp_path))
    assert [(point.density, point.clusters) for point in sweep.front(found)] == [(0.05, 4), (0.05, 8)]
    assert all(point.criterion == "Wanda" for point in sweep.front(found))
    lines = sweep.to_csv(found).splitlines()
    assert lines[0] == "criterion,density,clusters,seed,size,accuracy,front" and len(lines) == 9
    assert [line for line in lines if line.endswith(",1")] == [
        "Wanda,0.05,4,0,200,0.907500,1", "Wanda,0.05,8,0,400,0.913750,1",
    ]  # fmt: skip
    sweep.plot(found, tmp_path / "front.png")
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")
