"""`dcformat compress MODEL`: compress another program's network, or a packed one, without training it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import numpy.typing as npt
from dcformat_interop import kinds
from dcformat_interop.hub import NETWORK_SUFFIXES, cached_repository, model_in
from dcformat_interop.refusals import WrongKindError

from dcformat.source import is_url
from dcformat_cli.array_files import read_arrays
from dcformat_cli.failures import UnfitError, misuse, require_torch
from dcformat_cli.foreign_networks import network_kind, read_network
from dcformat_cli.group import Choice
from dcformat_cli.input_files import naming, opened, source, spooled
from dcformat_cli.output_files import OutputFile
from dcformat_cli.pack.delta_packing import is_dcf
from dcformat_cli.shared_options import MODES, FileName, as_json, max_memory, output, size
from dcformat_cli.terminal import emit_json, note, say

if TYPE_CHECKING:
    from dcformat_pruning.calibration import CalibrationGoal, CalibrationTrial

    from dcformat import Model
    from dcformat.codecs import Mode

#: The networks that `dcformat compress` trains itself.
NETWORKS = ("lenet-300-100", "lenet-5")

#: The files to give instead of one that holds no network.
_INSTEAD = (
    "an ONNX or TensorFlow Lite model, a .pt2 program or a .dcf file with a network (to start from a checkpoint, use "
    "compress lenet-5 --checkpoint FILE or compress --module)"
)

_CRITERIA = ("obs", "wanda", "magnitude", "random")


@dataclass(frozen=True, slots=True)
class CalibratedOptions:
    """The options of the command line; their help texts explain them."""

    model: str
    output: OutputFile
    calibration: str | None
    size: int | None
    bits: float | None
    max_change: float | None
    max_drop: float | None
    density: float
    criterion: str
    logits: bool
    probes: int
    refine: int
    mode: Mode
    dims: tuple[str, ...]
    values: tuple[str, ...]
    max_memory: int | None
    as_json: bool

    def check(self) -> None:
        """Raise `click.UsageError` if options contradict each other or the output cannot be written."""
        goals = {"--size": self.size, "--bits": self.bits, "--max-change": self.max_change, "--max-drop": self.max_drop}
        if len(given := [name for name, value in goals.items() if value is not None]) > 1:
            raise misuse(f"expected one goal, found {', '.join(given)}")
        if self.model == self.calibration == "-":
            raise misuse("expected MODEL or --calibration from stdin, found both")
        self.output.check(self.model, self.calibration)

    def goal(self, elements: int) -> CalibrationGoal:
        """Return the goal, for a network with a number of elements in its tensors."""
        from dcformat_pruning.calibration import CalibrationGoal

        if self.size is not None or self.bits is not None:
            return CalibrationGoal("size", self.size if self.size is not None else float(self.bits or 0) * elements / 8)
        if self.max_drop is not None:
            return CalibrationGoal("drop", self.max_drop)
        return CalibrationGoal("change", 0.01 if self.max_change is None else self.max_change)


_ABOVE_ZERO = click.FloatRange(min=0, min_open=True)


@click.command("compress")
@click.argument("model", type=FileName(), metavar="MODEL")
@output("the packed file")
@click.option(
    "--calibration",
    type=FileName(),
    metavar="X.npz",
    help="Inputs to compress for: an array for each input of the network, or an .npy file for the only one (- "
    "for stdin) [default: random numbers].",
)
@click.option("--size", type=size, metavar="SIZE", help="Goal: a file of at most this size, with the least change.")
@click.option("--bits", type=_ABOVE_ZERO, help="Goal: the same, in bits for each element of the network's tensors.")
@click.option(
    "--max-change",
    type=_ABOVE_ZERO,
    help="Goal: the smallest file whose outputs change by at most this: the divergence of probabilities in nats, or "
    "half the relative squared error of other outputs [default: 0.01].",
)
@click.option(
    "--max-drop",
    type=click.FloatRange(min=0, max=100),
    metavar="PERCENT",
    help="Goal: the smallest file that gives at most this share of the inputs another class.",
)
@click.option(
    "--density",
    type=click.FloatRange(min=0, max=1, min_open=True),
    default=1.0,
    show_default=True,
    help="The largest share of the weights that may differ from zero.",
)
@click.option(
    "--criterion",
    type=Choice(_CRITERIA),
    default="obs",
    show_default=True,
    help="How to choose the weights that --density keeps.",
)
@click.option("--logits", is_flag=True, help="The outputs are logits: compare the probabilities that they stand for.")
@click.option(
    "--probes",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Random gradients to take at each input; more of them cost time and make up for few inputs.",
)
@click.option(
    "--refine",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="STEPS",
    help="Gradient steps towards the outputs of the dense network at the calibration inputs, while --density prunes "
    "and in each trial.",
)
@click.option("--mode", type=Choice(MODES), default="tiny", show_default=True, help="How the file is coded.")
@click.option("--dim", "dims", multiple=True, metavar="NAME=SIZE", help="Size of a named dimension of an input.")
@click.option("--set", "values", multiple=True, metavar="NAME=VALUE", help="Fix an input to a value.")
@max_memory()
@as_json()
def compress_calibrated_command(**options: Any) -> None:
    """Compress MODEL (ONNX, TensorFlow Lite, .pt2 or .dcf; - for stdin) without training it.

    MODEL may also be a repository in the Hugging Face cache (org/name) that holds such a file.

    Weights are pruned and shared layer by layer, so that the outputs at the calibration inputs change least for the
    saved bits, and each layer makes up for the errors of those before it. Every fifth input is kept to compare the
    networks. The price of a bit is changed until the goal is reached: each line shows a price's size and change.
    """
    _compress(CalibratedOptions(**options))


def takes(args: Sequence[str], parent: click.Context | None) -> bool:
    """Return whether the arguments of `dcformat compress` name a file, for this command, and not a network."""
    command = compress_calibrated_command
    # The command keeps the help option of the first context that it meets, so this one must inherit `-h`.
    context = click.Context(command, parent=parent, ignore_unknown_options=True, resilient_parsing=True)
    try:
        found = command.make_parser(context).parse_args(list(args))[0].get("model")
    except click.UsageError:
        return False
    if not isinstance(found, str) or found in NETWORKS:
        return False
    return found == "-" or "/" in found or bool(Path(found).suffix) or Path(found).exists()


def _compress(options: CalibratedOptions) -> None:
    require_torch("compress")
    from dcformat_pruning.calibration import CalibrationOptions, compress_calibrated
    from dcformat_runtime import InputError

    options.check()
    model = _read(options)
    inputs = _inputs(options, model)
    if inputs is None:
        note("without --calibration, the network is compressed for random inputs; real ones give better results")
    elements = model.elements
    settings = CalibrationOptions(
        options.density, options.criterion, options.logits, (), options.probes, options.refine, options.mode
    )  # fmt: skip
    trials: list[tuple[CalibrationTrial, bool]] = []

    def progress(trial: CalibrationTrial, best: bool) -> None:
        trials.append((trial, best))
        say(f"{_figures(trial)}{': the best so far' if best else ''}", err=True)

    label = options.model if options.calibration is None else options.calibration
    try:
        best = compress_calibrated(model, inputs, options.goal(elements), settings, progress)
    except (InputError, ValueError) as error:
        raise ValueError(f"{label}: {error}") from None
    with options.output.open() as out:
        out.write(best.packed)
    if options.as_json:
        emit_json(_document(options, best, trials), err=options.output.to_stdout)
    else:
        say(f"{options.output}: {_figures(best)}", err=options.output.to_stdout)


def _read(options: CalibratedOptions) -> Model:
    if is_url(options.model):
        with opened(options.model, options.max_memory) as packed:
            return packed.model()
    folder = cached_repository(options.model)
    with spooled(options.model if folder is None else model_in(folder, options.model, NETWORK_SUFFIXES)) as path:
        return _read_file(options, path)


def _read_file(options: CalibratedOptions, path: Path) -> Model:
    """Read the network from a path that stands for the one that the user gave."""
    if network_kind(path) is not None:
        with naming(options.model):
            return read_network(path, options.dims, options.values, max_memory=options.max_memory).model
    if options.dims or options.values:
        raise misuse("--dim and --set need an ONNX or TFLite model or a PyTorch program")
    if path.is_file() and not is_dcf(path):
        with path.open("rb") as file:
            head = file.read(kinds.HEAD)
        kind = kinds.looks_like(head)
        found = f"looks like {kind}" if kind else "bytes of no known kind" if head else "an empty file"
        raise WrongKindError(source(options.model)[1], "a network", found, _INSTEAD)
    with opened(str(path), options.max_memory) as packed:
        return packed.model()


def _inputs(options: CalibratedOptions, model: Model) -> Mapping[str, npt.NDArray[Any]] | None:
    if options.calibration is None:
        return None
    found = read_arrays(options.calibration, options.max_memory)
    if isinstance(found, np.ndarray):
        names = [port.name for port in model.graph.inputs] if model.graph is not None else []
        if len(names) > 1:
            expected = f"an .npz archive with arrays for {', '.join(map(repr, names))}"
            raise UnfitError(options.calibration, expected, "one array")
        return dict.fromkeys(names, found)
    return found


def _figures(trial: CalibrationTrial) -> str:
    drop = f", {trial.drop:.2f} % of the classes differ" if trial.drop is not None else ""
    return f"{trial.size:,} bytes, change {trial.change:.3g}{drop}, density {100 * trial.density:.1f} %"


def _document(
    options: CalibratedOptions, best: CalibrationTrial, trials: list[tuple[CalibrationTrial, bool]]
) -> dict[str, Any]:
    def figures(trial: CalibrationTrial) -> dict[str, Any]:
        drop = None if trial.drop is None else trial.drop / 100
        return {
            "price": trial.price, "bytes": trial.size, "change": trial.change, "drop": drop, "density": trial.density,
        }  # fmt: skip

    return {
        "file": options.model,
        "output": str(options.output),
        "mode": options.mode,
        **figures(best),
        "trials": [figures(trial) for trial, _ in trials],
    }
