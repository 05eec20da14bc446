"""`dcformat compress --module`: compress a network of the user's own code with the user's own data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from dcformat_cli import summary, user_code
from dcformat_cli.failures import misuse, require_torch
from dcformat_cli.output_files import OutputFile
from dcformat_cli.progress import reporting
from dcformat_cli.shared_options import as_json, numbers, output, size
from dcformat_cli.terminal import TextTable, emit_json, note, say
from dcformat_cli.training_options import stage_directory, training_options
from dcformat_cli.user_code import UserCodeError

if TYPE_CHECKING:
    from dcformat_pruning import Compression, Goal, Settings, Trial
    from torch import nn

    from dcformat.codecs import Mode

#: Decimals of a metric in tables.
_METRIC = ".4f"


@dataclass(frozen=True, slots=True)
class ModuleOptions:
    """The options of the command line; their help texts explain them."""

    module: str
    data: str
    output: OutputFile
    max_drop: float | None
    size: int | None
    density: float | None
    step: str | None
    teacher: str | None
    epochs: int | tuple[int, int, int]
    dense_epochs: int
    trials: int
    batch: int
    lr: float | tuple[float, float, float]
    clusters: int
    units: float
    bfloat16: bool
    seed: int
    device: str
    mode: Mode | None
    resume: str | None
    keep_stages: bool
    as_json: bool

    def goal(self) -> Goal:
        """Return the goal; raise `click.UsageError` unless exactly one is given."""
        from dcformat_pruning import Goal

        given = {"--max-drop": self.max_drop, "--size": self.size, "--density": self.density}
        found = [name for name, value in given.items() if value is not None]
        if len(found) != 1:
            raise misuse(f"expected one of {', '.join(given)}, found {' and '.join(found) or 'none'}")
        return Goal(self.max_drop, self.size, self.density)

    def settings(self) -> Settings:
        """Return the settings of the training."""
        from dcformat_pruning import Settings

        return Settings(
            epochs=self.epochs, dense_epochs=self.dense_epochs, trials=self.trials, batch=self.batch, lr=self.lr,
            clusters=self.clusters, units=self.units, bfloat16=self.bfloat16, mode=self.mode, seed=self.seed,
        )  # fmt: skip


def _rates(text: str) -> float | tuple[float, ...]:
    """Parse a number, or three with commas between them, one for each stage; the type of an option."""
    found = numbers(text)
    if len(found) not in (1, 3):
        raise click.BadParameter(f"expected a number, or three (prune, share, settle), found {text!r}")
    return found[0] if len(found) == 1 else found


def _epochs(text: str) -> int | tuple[int, ...]:
    """Parse whole numbers as `_rates` does; the type of an option."""
    found = _rates(text)
    values = found if isinstance(found, tuple) else (found,)
    if not all(value.is_integer() for value in values):
        raise click.BadParameter(f"expected whole numbers, found {text!r}")
    whole = tuple(int(value) for value in values)
    return whole[0] if len(whole) == 1 else whole


@click.command("compress")
@click.option("--module", required=True, metavar="NAME", help="MODULE:FUNCTION that returns the network, trained.")
@click.option(
    "--data",
    required=True,
    metavar="NAME",
    help="MODULE:FUNCTION that returns train and validate, and optionally test: DataLoaders, or pairs of arrays "
    "(inputs, labels); validate and test may also be functions that take the module and return its metric.",
)
@output("the packed file")
@click.option(
    "--max-drop",
    type=click.FloatRange(min=0),
    metavar="POINTS",
    help="Goal: the smallest file whose metric drops by at most this many points (hundredths of an accuracy).",
)
@click.option("--size", type=size, metavar="SIZE", help="Goal: the best network in a file of at most this size.")
@click.option(
    "--density",
    type=click.FloatRange(min=0, max=1, min_open=True),
    help="Goal: a network with this share of its weights.",
)
@click.option(
    "--step",
    metavar="NAME",
    help="MODULE:FUNCTION that takes the module and returns step(batch) -> loss, for a loss of your own.",
)
@click.option(
    "--teacher",
    metavar="NAME",
    help="MODULE:FUNCTION that returns a better network, whose outputs are targets in place of the dense network's.",
)
@click.option(
    "--epochs",
    type=_epochs,
    default="12",
    show_default=True,
    metavar="N[,N,N]",
    help="Training epochs of each network that is tried: together, or while pruning, sharing and settling.",
)
@click.option(
    "--dense-epochs",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Epochs to train the dense network first.",
)
@click.option(
    "--trials", type=click.IntRange(min=1), default=6, show_default=True, help="Maximum number of networks to try."
)
@click.option(
    "--batch", type=click.IntRange(min=1), default=128, show_default=True, help="Size of a batch, if data are arrays."
)
@click.option(
    "--lr",
    type=_rates,
    default="0.002",
    show_default=True,
    metavar="RATE[,RATE,RATE]",
    help="Peak learning rate (of Adam), or one each while pruning, sharing and settling.",
)
@click.option(
    "--clusters",
    type=click.IntRange(min=1, max=256),
    default=16,
    show_default=True,
    help="Maximum number of values that the weights of a layer share.",
)
@click.option(
    "--units",
    type=click.FloatRange(min=0, max=1, min_open=True),
    default=1.0,
    show_default=True,
    help="Share of the hidden units and channels of each layer that is kept at first.",
)
@click.option("--bfloat16", is_flag=True, help="Train in bfloat16 on a processor that has instructions for it.")
@training_options("the smallest")
@as_json()
def compress_module_command(**options: Any) -> None:
    """Compress your own network with your own data.

    The command prunes the network, shares and rounds its weights, and packs the result, again and again, until it finds
    the smallest file that meets the goal on the validation data. The dense network teaches each of these networks. Only
    the functions that you name are executed. The test data are read once, at the end.

    After an interruption, FILE.stages holds the completed stages, and --resume continues from them. If no network
    reaches the goal, the command writes the nearest one, and the exit code is 1.
    """
    _compress(ModuleOptions(**options))


def _compress(options: ModuleOptions) -> None:
    require_torch("compress")
    options.output.check()
    goal, settings = options.goal(), options.settings()
    functions = {
        "--module": options.module,
        "--data": options.data,
        "--step": options.step,
        "--teacher": options.teacher,
    }
    named = {option: user_code.function(option, name) for option, name in functions.items() if name is not None}
    name = options.module.partition(":")[2]
    with stage_directory(options.output, name, options.resume, keep=options.keep_stages) as stages:
        made = _train(options, named, goal, settings, str(stages.directory))
        with options.output.open() as out:
            out.write(made.data)
    _report(options, goal, made)
    if not made.reached:
        raise click.exceptions.Exit(1)


def _network(name: str, function: Any) -> nn.Module:
    """Call a user's function that returns a network."""
    from torch import nn

    module = user_code.call(name, function)
    if not isinstance(module, nn.Module):
        raise UserCodeError(f"{name}: expected a torch.nn.Module, found {type(module).__name__}")
    return module


def _train(options: ModuleOptions, named: dict[str, Any], goal: Goal, settings: Settings, folder: str) -> Compression:
    import torch
    from dcformat_pruning import RunControl, compress
    from dcformat_pruning.training import resolve_device

    torch.manual_seed(options.seed)
    module = _network(options.module, named["--module"]).to(resolve_device(options.device))
    teacher = _network(str(options.teacher), named["--teacher"]) if "--teacher" in named else None
    data = user_code.call(options.data, named["--data"])
    if not isinstance(data, tuple | list) or len(data) not in (2, 3):
        found = f"{len(data)} of them" if isinstance(data, tuple | list) else type(data).__name__
        raise UserCodeError(f"{options.data}: expected train, validate and optionally test, found {found}")
    step = user_code.call(str(options.step), named["--step"], module) if "--step" in named else None
    with user_code.blaming(*named.values()), reporting() as progress:
        return compress(
            module,
            train=data[0],
            validate=data[1],
            test=data[2] if len(data) == 3 else None,
            goal=goal,
            settings=settings,
            step=step,
            teacher=teacher,
            control=RunControl(folder, progress, watch=lambda trial: note(_tried(trial))),
        )


def _tried(trial: Trial) -> str:
    return f"network {trial.number}: {trial.keep:,} weights, {trial.size:,} bytes, metric {trial.metric:{_METRIC}}"


def _report(options: ModuleOptions, goal: Goal, made: Compression) -> None:
    import dcformat

    with dcformat.open(made.data) as content:
        figures = summary.summarize(content)
    to_stdout = options.output.to_stdout
    if made.note:
        note(made.note)
    if options.as_json:
        emit_json(_document(options, goal, made, figures), err=to_stdout)
        return
    if not to_stdout:
        rows = [(s.stage, f"{s.metric:{_METRIC}}", f"{s.weights:,}", f"{s.seconds:.1f}") for s in made.stages]
        TextTable("stages", ("after", "validation metric", "weights", "seconds"), rows).show()
        say("")
        summary.show_tables(figures)
        say("")
    say(summary.headline(str(options.output), figures), err=to_stdout)
    tested = "" if made.tested is None else f", test metric {made.tested:{_METRIC}}"
    say(f"{options.output}: metric {made.metric:{_METRIC}} (dense {made.dense:{_METRIC}}){tested}", err=to_stdout)


def _document(options: ModuleOptions, goal: Goal, made: Compression, figures: summary.Summary) -> dict[str, Any]:
    return {
        "file": str(options.output),
        "module": options.module,
        "goal": {name: value for name, value in asdict(goal).items() if value is not None},
        "reached": made.reached,
        "note": made.note,
        "seed": options.seed,
        "mode": made.mode,
        "dense": made.dense,
        "metric": made.metric,
        "test": made.tested,
        "trials": [asdict(trial) for trial in made.trials],
        "stages": [asdict(stage) for stage in made.stages],
        **summary.as_json(figures),
    }
