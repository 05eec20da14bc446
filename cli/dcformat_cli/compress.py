"""`dcformat compress`: from nothing, or a checkpoint, to a packed file that was verified and evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from dcformat.architectures import ARCHITECTURES
from dcformat.datasets import load_split
from dcformat_cli import summary
from dcformat_cli.evaluation import Evaluation, evaluate
from dcformat_cli.failures import require_torch
from dcformat_cli.group import Choice
from dcformat_cli.inputs import spooled
from dcformat_cli.options import MODES, as_json, data, output
from dcformat_cli.outputs import Output
from dcformat_cli.progress import reporting
from dcformat_cli.stages import Stages
from dcformat_cli.terminal import Table, emit_json, say
from dcformat_cli.writing import packed_model

if TYPE_CHECKING:
    from dcformat_pruning.recipes import Result, StageReport

    from dcformat.codecs.choose import Mode, RelativeIndex

_NETWORKS = ("lenet-300-100", "lenet-5")
_RECIPES = ("classic", "default", "record", "extreme")

#: What ``--resume`` without a directory stands for.
_BESIDE = "\0"


@click.command("compress")
@click.argument("architecture", type=Choice(_NETWORKS))
@output("the packed file")
@click.option(
    "--recipe",
    type=Choice(_RECIPES),
    default="default",
    show_default=True,
    help="classic: Deep Compression as published; default: the best in minutes; record: the smallest file as accurate "
    "as the paper's; extreme: the smallest at 95.83 % (lenet-300-100).",
)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
@click.option("--device", type=Choice(("auto", "cpu", "cuda")), default="auto", show_default=True)
@click.option("--epochs", type=click.IntRange(min=1), help="Training epochs of all stages together [the recipe's].")
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Start from this state_dict (.safetensors, .npz, .pt) instead of training the dense network.",
)
@data()
@click.option("--mode", type=Choice(MODES), help="The coder [the recipe's].")
@click.option(
    "--resume",
    is_flag=False,
    flag_value=_BESIDE,
    metavar="[DIR]",
    help="Continue from the last complete stage, in DIR or in FILE.stages beside the output.",
)
@click.option("--keep-stages", is_flag=True, help="Keep the stages' weights when done (those in a DIR always stay).")
@as_json()
def compress_command(
    architecture: str,
    output: Output,
    recipe: str,
    seed: int,
    device: str,
    epochs: int | None,
    checkpoint: Path | None,
    data: Path | None,
    mode: Mode | None,
    resume: str | None,
    keep_stages: bool,
    as_json: bool,
) -> None:
    """Train ARCHITECTURE, prune it, share its weights, fine-tune them, and pack the result.

    Whatever is chosen on the way is chosen on images held out of the training set. The packed file is read
    back and compared, then run once on the test set.

    When interrupted, the stages that were complete are in FILE.stages, and --resume continues from them.
    """
    import dcformat_runtime

    import dcformat

    require_torch("compress")
    output.check(checkpoint)
    load_split("test", data)  # only whether it can be read: not after an hour of training
    directory = None if resume in (None, _BESIDE) else Path(str(resume))
    beside = output.path or Path(f"{architecture}.dcf")
    with Stages(beside, directory, resuming=resume is not None, keep=keep_stages) as stages:
        start = None
        if checkpoint is not None:
            with spooled(checkpoint) as path:
                start = stages.start_from(path, ARCHITECTURES[architecture])
        result = _train(architecture, recipe, seed, device, epochs, start, data, stages)
        chosen = mode or cast("Mode", result.mode)
        # Classic is the paper as published, its relative index too; another mode was asked for because it is smaller.
        index: RelativeIndex = "filler" if (recipe, chosen) == ("classic", "fast") else "escape"
        packed = packed_model(result.model, str(output), chosen, index)
        with output.open() as out:
            out.write(packed)
        tested = evaluate(dcformat_runtime.load(packed), data)
    with dcformat.open(packed) as content:
        figures = summary.summarize(content)
    settings = {"architecture": architecture, "recipe": recipe, "seed": seed, "mode": chosen}
    if as_json:
        emit_json(_document(output, settings, figures, result.stages, tested), err=output.to_stdout)
    elif output.to_stdout:
        say(summary.headline(str(output), figures), err=True)
        say(_line(output, tested), err=True)
    else:
        _show(output, figures, result.stages, tested)


def _train(
    architecture: str,
    recipe: str,
    seed: int,
    device: str,
    epochs: int | None,
    checkpoint: Path | None,
    data: Path | None,
    stages: Stages,
) -> Result:
    from dcformat_pruning.recipes import compress

    with reporting() as progress:
        return compress(
            architecture,
            recipe,
            seed=seed,
            device=device,
            epochs=epochs,
            checkpoint=checkpoint,
            resume_dir=stages.directory,
            progress=progress,
            data=data,
        )


def _show(path: Output, figures: summary.Summary, stages: Sequence[StageReport], tested: Evaluation) -> None:
    rows = [(s.stage, f"{100 * s.accuracy:.2f} %", f"{s.weights:,}", f"{s.seconds:.1f}") for s in stages]
    Table("stages", ("after", "validation accuracy", "weights", "seconds"), rows).show()
    say("")
    summary.layer_table(figures).show()
    say("")
    summary.ledger_table(figures).show()
    say("")
    say(summary.headline(str(path), figures))
    say(_line(path, tested))


def _line(path: Output, tested: Evaluation) -> str:
    return (
        f"{path}: run from the packed file, {tested.correct:,} of {tested.images:,} test images right: "
        f"accuracy {100 * tested.accuracy:.2f} %, error {tested.error_percent:.2f} %"
    )


def _document(
    path: Output,
    settings: dict[str, Any],
    figures: summary.Summary,
    stages: Sequence[StageReport],
    tested: Evaluation,
) -> dict[str, Any]:
    return {
        "file": str(path),
        **settings,
        "accuracy": tested.accuracy,
        "images": tested.images,
        "stages": [asdict(stage) for stage in stages],
        **summary.as_json(figures),
    }
