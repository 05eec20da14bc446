"""`dcformat sweep`: sizes and accuracies of every combination of criterion, density, clusters and seed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dcformat.files import replacing
from dcformat_cli.failures import MissingExtraError, require_ray, require_torch
from dcformat_cli.group import Choice
from dcformat_cli.shared_options import MODES, FileName, as_json, data
from dcformat_cli.terminal import TextTable, emit_json, note

if TYPE_CHECKING:
    from dcformat_pruning.sweep import Outcome, Point


@click.command("sweep")
@click.option("--out", required=True, type=FileName(path_type=Path, file_okay=False), metavar="DIR",
              help="The study (sweep.db), its table and its plot.")  # fmt: skip
@click.option("--criterion", "criteria", multiple=True, default=("magnitude",), show_default=True, metavar="NAME",
              help="As in `dcformat study criteria`; may be repeated.")  # fmt: skip
@click.option("--density", "densities", multiple=True, type=click.FloatRange(0, 1, min_open=True),
              default=(0.1, 0.05, 0.02), show_default=True,
              help="Share of weights that stay; may be repeated.")  # fmt: skip
@click.option("--clusters", "clusters", multiple=True, type=click.IntRange(2, 1 << 16), default=(8, 16, 32),
              show_default=True, help="Shared values in each layer; may be repeated.")  # fmt: skip
@click.option("--seed", "seeds", multiple=True, type=click.IntRange(0), default=(0,), show_default=True,
              help="May be repeated.")  # fmt: skip
@click.option("--dense-epochs", type=click.IntRange(1), default=12, show_default=True, help="For the dense network.")
@click.option("--epochs", type=click.IntRange(1), default=2, show_default=True, help="Epochs of retraining.")
@click.option("--images", type=click.IntRange(1), help="Train on the first images only [default: all].")
@click.option("--mode", type=Choice(MODES), default="small", show_default=True, help="The coder of the files.")
@click.option("--engine", type=Choice(("local", "ray")), default="local", show_default=True,
              help="Where networks are pruned and packed.")  # fmt: skip
@click.option("--address", help="With --engine ray: the address of the cluster [default: a new one on this machine].")
@data()
@as_json()
def sweep_command(out: Path, engine: str, address: str | None, data: Path | None, as_json: bool, **grid: Any) -> None:
    """Prune, retrain, share and pack LeNet-300-100 for every combination of the options that may be repeated.

    Accuracies are on images held out of the training set. The command keeps finished points in DIR/sweep.db, an Optuna
    study: after an interruption, the same command continues, and another grid adds to the study. DIR/sweep.csv has all
    points, and DIR/sweep.png shows them with the front: the points that no other beats in both size and accuracy.
    """
    require_torch("sweep")
    try:
        from dcformat_pruning import sweep
    except ImportError as error:
        raise MissingExtraError(f"sweep needs Optuna: pip install 'dcformat[sweep]' ({error})") from None
    settings = sweep.SweepSettings(
        grid["dense_epochs"], grid["epochs"], grid["mode"], None if data is None else str(data), grid["images"]
    )
    # Workers load the images again, maybe on another machine; without data, no directory is made.
    sweep.images_for(settings)
    out.mkdir(exist_ok=True)
    points = sweep.grid(grid["criteria"], grid["densities"], grid["clusters"], grid["seeds"])
    left = len(points) - len(set(points) & set(sweep.outcomes(out)))
    if left < len(points):
        note(f"{len(points) - left} of {len(points)} points are finished already")
    run: sweep.SweepEngine = sweep.in_turn
    if engine == "ray":
        require_ray("--engine ray")
        import ray
        from dcformat_pruning.ray_sweep import on_ray

        if not ray.is_initialized():
            ray.init(address=address, logging_level="error", log_to_driver=False)
        run = on_ray
    for number, (point, outcome) in enumerate(sweep.sweep(points, settings, out, run), start=1):
        note(f"{number} of {left}: {_named(point)}: {outcome.size:,} bytes, {100 * outcome.accuracy:.2f} %")
    found = sweep.outcomes(out)
    with replacing(out / "sweep.csv") as file:
        file.write(sweep.to_csv(found).encode())
    sweep.plot(found, out / "sweep.png")
    _show(found, sweep.front(found), as_json)


def _named(point: Point) -> str:
    return f"{point.criterion}, density {point.density:g}, {point.clusters} clusters, seed {point.seed}"


def _show(found: dict[Point, Outcome], best: list[Point], as_json: bool) -> None:
    if as_json:
        emit_json(
            {
                "points": [{**point._asdict(), **found[point]._asdict()} for point in sorted(found)],
                "front": [{**point._asdict(), **found[point]._asdict()} for point in best],
            }
        )
        return
    rows = [
        (point.criterion, f"{point.density:g}", str(point.clusters), str(point.seed), f"{found[point].size:,}",
         f"{100 * found[point].accuracy:.2f}")
        for point in best
    ]  # fmt: skip
    columns = ("criterion", "density", "clusters", "seed", "bytes", "accuracy, %")
    TextTable(f"the front of {len(found)} points", columns, rows).show()
