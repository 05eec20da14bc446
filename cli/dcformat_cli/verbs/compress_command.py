"""`dcformat compress`: train, or start from a checkpoint, and make a packed, verified and evaluated file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dcformat.architectures import ARCHITECTURES
from dcformat.datasets import load_split
from dcformat_cli import summary
from dcformat_cli.accuracy import Evaluation, evaluate
from dcformat_cli.failures import require_torch
from dcformat_cli.group import Choice
from dcformat_cli.input_files import spooled
from dcformat_cli.output_files import OutputFile
from dcformat_cli.progress import reporting
from dcformat_cli.shared_options import FileName, as_json, data, output
from dcformat_cli.stage_directory import StageDirectory
from dcformat_cli.terminal import TextTable, emit_json, say
from dcformat_cli.training_options import stage_directory, training_options
from dcformat_cli.verbs.compress_calibrated import NETWORKS, compress_calibrated_command, takes
from dcformat_cli.writing import packed_model

if TYPE_CHECKING:
    from dcformat_pruning.recipes import Result, StageReport

    from dcformat.codecs import Mode, RelativeIndex

RECIPES = ("classic", "default", "record", "extreme")


@dataclass(frozen=True, slots=True)
class CompressOptions:
    """The options of the command line; their help texts explain them."""

    architecture: str
    output: OutputFile
    recipe: str
    seed: int
    device: str
    epochs: int | None
    checkpoint: Path | None
    data: Path | None
    mode: Mode | None
    resume: str | None
    keep_stages: bool
    as_json: bool

    def stage_directory(self) -> StageDirectory:
        """Return the directory of the run's stages: the user's own, or one beside the output."""
        return stage_directory(self.output, self.architecture, self.resume, keep=self.keep_stages)


@dataclass(frozen=True, slots=True)
class Compressed:
    """The result of a run: the file's bytes and its coder, the stages, and the evaluation on the test images."""

    packed: bytes
    mode: Mode
    stages: Sequence[StageReport]
    tested: Evaluation


class _CompressCommand(click.Command):
    """Makes a LeNet, or leaves a user's module or a model file to the commands that compress these."""

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> click.Context:
        """Parse the arguments with the options of the command that takes them."""
        from dcformat_cli.verbs.compress_module import compress_module_command

        compress_module_command.epilog = compress_calibrated_command.epilog = self.epilog
        if any(argument.partition("=")[0] == "--module" for argument in args):
            return compress_module_command.make_context(info_name, args, *rest, **extra)
        if takes(args, extra.get("parent")):
            return compress_calibrated_command.make_context(info_name, args, *rest, **extra)
        return super().make_context(info_name, args, *rest, **extra)


@click.command("compress", cls=_CompressCommand)
@click.argument("architecture", type=Choice(NETWORKS))
@output("the packed file")
@click.option(
    "--recipe",
    type=Choice(RECIPES),
    default="default",
    show_default=True,
    help="classic: Deep Compression as published; default: the best result in minutes; record: the smallest file that "
    "is as accurate as the paper's; extreme: the smallest file with 95.83 % accuracy (lenet-300-100 only).",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    help="Number of training epochs in all stages together [default: the recipe's].",
)
@click.option(
    "--checkpoint",
    type=FileName(path_type=Path),
    metavar="FILE",
    help="Start from this state_dict (.safetensors, .npz, .pt) instead of training the dense network.",
)
@data()
@training_options("the recipe's")
@as_json()
def compress_command(**options: Any) -> None:
    """Train a network, prune it, share its weights, fine-tune them, and pack the result.

    All choices along the way are made on images held out of the training set. At the end, the packed file is read back
    and compared, and then run once on the test set.

    After an interruption, FILE.stages holds the completed stages, and --resume continues from them.

    `dcformat compress --module PACKAGE.MODULE:FUNCTION` compresses your own network with your own data; `dcformat
    compress --module NAME --help` explains it.

    `dcformat compress MODEL` compresses an ONNX or TensorFlow Lite model, a .pt2 program or a .dcf file without
    training; `dcformat compress MODEL --help` explains it.
    """
    _compress(CompressOptions(**options))


def _compress(options: CompressOptions) -> None:
    import dcformat_runtime

    require_torch("compress")
    options.output.check(options.checkpoint)
    load_split("test", options.data)  # Unreadable test images should fail now, not after an hour of training.
    with options.stage_directory() as stages:
        result = _train(options, stages)
        mode = options.mode or result.mode
        # Classic follows the paper, with its relative index; users who choose another mode want a smaller file.
        index: RelativeIndex = "filler" if (options.recipe, mode) == ("classic", "fast") else "escape"
        packed = packed_model(result.model, str(options.output), mode, index)
        with options.output.open() as out:
            out.write(packed)
        tested = evaluate(dcformat_runtime.load(packed), options.data)
    _report(options, Compressed(packed, mode, result.stages, tested))


def _train(options: CompressOptions, stages: StageDirectory) -> Result:
    from dcformat_pruning.recipes import compress_architecture

    start = None
    if options.checkpoint is not None:
        with spooled(options.checkpoint) as path:
            start = stages.start_from(path, ARCHITECTURES[options.architecture])
    with reporting() as progress:
        return compress_architecture(
            options.architecture,
            options.recipe,
            seed=options.seed,
            device=options.device,
            epochs=options.epochs,
            checkpoint=start,
            resume_dir=stages.directory,
            progress=progress,
            data=options.data,
        )


def _report(options: CompressOptions, made: Compressed) -> None:
    import dcformat

    output = options.output
    with dcformat.open(made.packed) as content:
        figures = summary.summarize(content)
    if options.as_json:
        emit_json(_document(options, made, figures), err=output.to_stdout)
    elif output.to_stdout:
        say(summary.headline(str(output), figures), err=True)
        say(_line(output, made.tested), err=True)
    else:
        _show(output, made, figures)


def _show(output: OutputFile, made: Compressed, figures: summary.Summary) -> None:
    rows = [(s.stage, f"{100 * s.metric:.2f} %", f"{s.weights:,}", f"{s.seconds:.1f}") for s in made.stages]
    TextTable("stages", ("after", "validation accuracy", "weights", "seconds"), rows).show()
    say("")
    summary.show_tables(figures)
    say("")
    say(summary.headline(str(output), figures))
    say(_line(output, made.tested))


def _line(output: OutputFile, tested: Evaluation) -> str:
    return (
        f"{output}: run from the packed file, {tested.correct:,} of {tested.images:,} test images right: "
        f"accuracy {100 * tested.accuracy:.2f} %, error {tested.error_percent:.2f} %"
    )


def _document(options: CompressOptions, made: Compressed, figures: summary.Summary) -> dict[str, Any]:
    return {
        "file": str(options.output),
        "architecture": options.architecture,
        "recipe": options.recipe,
        "seed": options.seed,
        "mode": made.mode,
        "accuracy": made.tested.accuracy,
        "images": made.tested.images,
        "stages": [asdict(stage) for stage in made.stages],
        **summary.as_json(figures),
    }
