"""Options of the commands that train: seed, device, and the stages from which a run continues."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from dcformat_cli.group import Choice
from dcformat_cli.output_files import OutputFile
from dcformat_cli.shared_options import MODES
from dcformat_cli.stage_directory import StageDirectory

#: The value of ``--resume`` without a directory.
_BESIDE = "\0"


def training_options(mode_default: str) -> Callable[[Any], Any]:
    """Return ``--seed``, ``--device``, ``--mode``, ``--resume`` and ``--keep-stages``."""
    options = (
        click.option(
            "--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True,
            help="Seed of the initial weights and of the order of the data.",
        ),
        click.option(
            "--device", type=Choice(("auto", "cpu", "cuda")), default="auto", show_default=True,
            help="Where to train; auto takes a CUDA GPU if there is one.",
        ),
        click.option(
            "--mode", type=Choice(MODES),
            help=f"The coder: fast to decode, small, or smallest for small networks [default: {mode_default}].",
        ),
        click.option(
            "--resume", is_flag=False, flag_value=_BESIDE, metavar="[DIR]",
            help="Continue from the last complete stage, in DIR or in FILE.stages beside the output.",
        ),
        click.option(
            "--keep-stages", is_flag=True, help="Keep the stages after success (those in a DIR are always kept)."
        ),
    )  # fmt: skip

    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def stage_directory(output: OutputFile, name: str, resume: str | None, *, keep: bool) -> StageDirectory:
    """Return the directory of a run's stages: the user's own, or one beside the output (or `name`, for stdout)."""
    named = None if resume in (None, _BESIDE) else Path(str(resume))
    return StageDirectory(output.path or Path(f"{name}.dcf"), named, resuming=resume is not None, keep=keep)
