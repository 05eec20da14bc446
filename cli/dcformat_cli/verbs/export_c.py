"""`dcformat export c`: write a file's network as C for microcontrollers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
import numpy.typing as npt

from dcformat.files import replacing
from dcformat_cli.array_files import read_arrays
from dcformat_cli.failures import UnfitError, misuse
from dcformat_cli.group import Choice
from dcformat_cli.input_files import naming, opened
from dcformat_cli.output_files import refuse_existing
from dcformat_cli.shared_options import FileName, as_json, file_argument, max_memory, max_work, refuse
from dcformat_cli.terminal import emit_json, note, say

if TYPE_CHECKING:
    from dcformat_runtime.c_export import Exported

    from dcformat import Model

#: Calibration images that are taken from a data set.
_IMAGES = 1000
_TARGETS = ("cortex-m0", "cortex-m3", "cortex-m4", "atmega1284p", "atmega328p")


@dataclass(frozen=True, slots=True)
class CExportOptions:
    """The options of the command line; their help texts explain them."""

    file: str
    output: Path
    force: bool
    form: Literal["resident", "sparse"]
    mode: Literal["fast", "small"]
    numbers: Literal["float32", "int8", "int16"]
    calibrate: Path | None
    static_inputs: bool
    tests: int
    targets: tuple[str, ...]
    emulate: bool
    max_memory: int | None
    max_work: int | None
    as_json: bool


@click.command("c", short_help="the network as C for microcontrollers")
@file_argument()
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="DIR",
    type=FileName(path_type=Path),
    help="Write model.c, model.h and test_model.c into this directory.",
)
@click.option("-f", "--force", is_flag=True, help="Replace existing output files.")
@click.option(
    "--form",
    type=Choice(("resident", "sparse")),
    default="resident",
    show_default=True,
    help="resident: weights stay entropy-coded and are decoded while computing; sparse: tables of gaps and codes, "
    "which are larger and faster.",
)
@click.option(
    "--mode",
    type=Choice(("fast", "small")),
    default="fast",
    show_default=True,
    help="The coder of resident weights: Huffman codes, or adaptive arithmetic coding, which is smaller, slower and "
    "takes more RAM.",
)
@click.option(
    "--numbers",
    type=Choice(("float32", "int8", "int16")),
    default="float32",
    show_default=True,
    help="Compute in float32, with the bits of a deterministic run, or in fixed point.",
)
@click.option(
    "--calibrate",
    type=FileName(path_type=Path),
    metavar="DATA",
    help="Inputs from which fixed point takes its scales: X.npy, or a directory of IDX files, of whose training images "
    f"the first {_IMAGES:,} are used. A network that is quantised already needs none.",
)
@click.option(
    "--static-inputs",
    is_flag=True,
    help="Let the model own its input, which then shares memory with other values.",
)
@click.option(
    "--tests", type=click.IntRange(1, 1000), default=4, show_default=True, help="Number of inputs in test_model.c."
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    type=Choice(_TARGETS),
    help="Compile for this processor, and print the bytes of code, constants, RAM and stack. May be repeated "
    "[default: cortex-m3, if its compiler is installed].",
)
@click.option("--emulate", is_flag=True, help="Also run the tests in an emulator, and print how long a run takes.")
@max_memory()
@max_work()
@as_json()
def c_command(**options: Any) -> None:
    """Write the network of FILE (- for stdin) as C99 for microcontrollers.

    The program allocates no memory, has no recursion, and calls only memcpy and, for a few operators in float32,
    functions of math.h. model_check verifies the checksum of the weights. test_model.c compares the outputs for a few
    inputs with those that this command computed.

    Calibration inputs have the network's shape and are float32, or uint8 pixels if the file has preprocessing. The
    command prints the error of fixed point on them.
    """
    _export(CExportOptions(**options))


def _export(options: CExportOptions) -> None:
    from dcformat_runtime.c_export import ExportOptions, export_c

    paths = [options.output / name for name in ("model.c", "model.h", "test_model.c")]
    for path in paths:
        refuse_existing(path, options.force)
    if options.output.exists() and not options.output.is_dir():
        raise misuse(f"{options.output}: expected a directory for the output, found a file")
    if options.form == "sparse" and options.mode != "fast":
        raise misuse("--mode small is for --form resident; tables have no coder")
    if options.numbers == "float32":
        refuse("only for fixed point (--numbers int8 or int16)", "calibrate")
    targets = _targets(options)
    with opened(options.file, options.max_memory, options.max_work) as content:
        if content.graph is None:
            raise UnfitError(options.file, "a file with a network", "one that holds only tensors (see unpack)")
        model = content.model()
    inputs = None if options.calibrate is None else _inputs(options.calibrate, model, options.max_memory)
    form = options.mode if options.form == "resident" else "tables"
    with naming(options.file):
        made = export_c(
            model, ExportOptions(options.numbers, form, options.static_inputs, options.tests), inputs,
            max_memory=options.max_memory, max_work=options.max_work,
        )  # fmt: skip
    options.output.mkdir(parents=True, exist_ok=True)
    for path in paths:
        with replacing(path) as out:
            out.write(made.files[path.name].encode())
    _report(options, made, {target: _measured(target, options.emulate, made) for target in targets})


def _inputs(source: Path, model: Model, max_memory: int | None) -> npt.NDArray[Any]:
    """Read calibration inputs of the network's shape."""
    assert model.graph is not None
    shape = model.graph.inputs[0].shape
    if source.is_dir():
        from dcformat.datasets import load_split

        found: Any = load_split("train", source, max_memory=max_memory).images[:_IMAGES]
    else:
        found = read_arrays(str(source), max_memory)
        if isinstance(found, dict):
            raise UnfitError(source, "an .npy array", "an .npz archive")
    size = 1
    for length in shape:
        size *= length
    if found.ndim < 1 or not len(found) or found[0].size != size:
        raise UnfitError(source, f"inputs of shape {('n', *shape)}", found.shape)
    if found.dtype == "uint8" and model.graph.preprocessing is None and model.graph.inputs[0].dtype == "float32":
        raise UnfitError(source, "float32, as the file has no preprocessing", "uint8")
    return found  # type: ignore[no-any-return]


def _targets(options: CExportOptions) -> Sequence[str]:
    """Return the targets to measure; refuse one whose compiler or emulator is not installed."""
    from dcformat_runtime.c_export import toolchains

    if not options.targets and toolchains.missing("cortex-m3") is not None:
        note("sizes were not measured, as arm-none-eabi-gcc is not installed")
        return ()
    targets = options.targets or ("cortex-m3",)
    for target in targets:
        absent = toolchains.missing(target, options.emulate)
        if absent is not None:
            raise UnfitError(f"--target {target}", f"{absent} to be installed", "none")
    return targets


def _measured(target: str, emulate: bool, made: Exported) -> dict[str, Any]:
    """Return the sizes for a target, and the length of a run."""
    from dcformat_runtime.c_export import toolchains

    sizes = toolchains.measure(made.files, target)
    found: dict[str, Any] = {**sizes._asdict(), "flash": sizes.flash}
    if emulate:
        ran = toolchains.emulate(made.files, target)
        if ran.failed or not ran.checked:
            raise UnfitError(f"--target {target}", "the outputs of this machine", f"{ran.failed} others")
        found |= {"length": ran.length, "unit": ran.unit}
    return found


def _report(options: CExportOptions, made: Exported, measured: dict[str, dict[str, Any]]) -> None:
    error = None if made.error is None else made.error._asdict()
    if options.as_json:
        emit_json({
            "file": options.file, "output": str(options.output), "format": "c", "form": options.form,
            "mode": options.mode if options.form == "resident" else None, "numbers": options.numbers,
            "data_bytes": len(made.data), "arena_bytes": made.arena_bytes, "error": error, "targets": measured,
        })  # fmt: skip
        return
    say(f"{options.output}: {len(made.data):,} bytes of weights, {made.arena_bytes:,} of values")
    if made.error is not None:
        same = f"the same output largest for {100 * made.error.same_argmax:.1f} %"
        say(
            f"fixed point on {made.error.inputs:,} inputs: {same}, error {made.error.mean:.2g} on average, "
            f"{made.error.largest:.2g} at most"
        )
    for target, sizes in measured.items():
        line = (
            f"{target}: flash {sizes['flash']:,} (code {sizes['text']:,}, constants {sizes['rodata']:,}), "
            f"RAM {sizes['ram'] + sizes['stack']:,} (variables {sizes['ram']:,}, stack {sizes['stack']:,})"
        )
        say(line + (f", {sizes['length']:,} {sizes['unit']}" if "length" in sizes else ""))
