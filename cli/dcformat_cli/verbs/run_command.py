"""`dcformat run`: run a packed file on a data set's test images, or on an array."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
import numpy as np
import numpy.typing as npt

from dcformat.source import read_stream
from dcformat_cli.evaluation import BATCH, Evaluation, classes, evaluate
from dcformat_cli.failures import misuse
from dcformat_cli.group import Choice
from dcformat_cli.input_files import naming, read_array, source
from dcformat_cli.options import as_json, data, file_argument, max_memory, max_work, output
from dcformat_cli.output_files import Output
from dcformat_cli.terminal import emit_json, say

if TYPE_CHECKING:
    from dcformat_runtime import Session


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of the command line; their help texts explain them."""

    file: str
    data: Path | None
    array: str | None
    output: Output | None
    threads: int | None
    backend: Literal["auto", "numba", "numpy"]
    deterministic: bool
    max_memory: int | None
    max_work: int | None
    as_json: bool

    def check(self) -> None:
        """Raise `click.UsageError` if options contradict each other or the output cannot be written."""
        if self.array is None and self.output is not None:
            raise misuse("-o needs --input X.npy")
        if self.array is not None and self.data is not None:
            raise misuse("expected --data or --input, found both")
        if self.array == "-" and self.file == "-":
            raise misuse("expected FILE or --input from stdin, found both")
        if self.output is not None:
            self.output.check(self.file, self.array)


@click.command("run")
@file_argument()
@data()
@click.option(
    "--input",
    "array",
    type=click.Path(),
    metavar="X.npy",
    help="Run on this array of shape (batch, ...) instead (- for stdin).",
)
@output("the outputs, LOGITS.npy,", required=False)
@click.option("--threads", type=click.IntRange(min=1), help="Maximum number of threads [default: one for each core].")
@click.option(
    "--backend",
    type=Choice(("auto", "numba", "numpy")),
    default="auto",
    show_default=True,
    help="auto: compiled kernels if they are ready, otherwise NumPy; numba: kernels, compiled now if necessary.",
)
@click.option(
    "--deterministic",
    is_flag=True,
    help="Give the same bits on any machine and for any batch size, unless a sum overflows.",
)
@max_memory()
@max_work()
@as_json()
def run_command(**options: Any) -> None:
    """Run FILE (- for stdin) and print its accuracy on a data set's test images.

    With --input, run it on an array instead. uint8 pixels go through the file's preprocessing; float32 input is used
    unchanged. The outputs are written to the file that -o names; without -o, the class of each input is printed.
    """
    _run(RunOptions(**options))


def _run(options: RunOptions) -> None:
    options.check()
    session = _load(options)
    file, array = options.file, options.array
    if array is None:
        with _naming_inputs(file):
            result = evaluate(session, options.data)
        _report(file, result, options.as_json)
        return
    logits = _outputs(session, read_array(array, options.max_memory), "stdin" if array == "-" else array)
    output = options.output
    if output is None:
        _print_classes(file, logits, session.labels, options.as_json)
        return
    with output.open() as out:
        np.lib.format.write_array(out, logits, allow_pickle=False)
    if options.as_json:
        document = {"file": file, "images": len(logits), "output": str(output), "shape": list(logits.shape)}
        emit_json(document, err=output.to_stdout)


def _load(options: RunOptions) -> Session:
    import dcformat_runtime

    content, label = source(options.file)
    with naming(label):
        # A session keeps its source, so that it can be pickled.
        kept = content if isinstance(content, Path) else bytes(read_stream(content, label, options.max_memory))
        return dcformat_runtime.load(
            kept, threads=options.threads, backend=options.backend, deterministic=options.deterministic,
            max_memory=options.max_memory, max_work=options.max_work,
        )  # fmt: skip


def _report(file: str, result: Evaluation, as_json: bool) -> None:
    if as_json:
        emit_json({"file": file, "images": result.images, "correct": result.correct, "accuracy": result.accuracy})
    else:
        say(
            f"{file}: {result.correct:,} of {result.images:,} test images right: accuracy "
            f"{100 * result.accuracy:.2f} %, error {result.error_percent:.2f} %"
        )


def _outputs(session: Session, values: npt.NDArray[Any], label: str) -> npt.NDArray[np.float32]:
    with _naming_inputs(label):
        # Make at least one call, so that an empty batch is checked and has outputs of the right shape.
        parts = [session(values[start : start + BATCH]) for start in range(0, max(1, len(values)), BATCH)]
    return np.concatenate(parts)


@contextmanager
def _naming_inputs(label: str) -> Iterator[None]:
    """Name the file in errors about arrays that do not fit the network."""
    from dcformat_runtime import InputError

    try:
        yield
    except InputError as error:
        raise ValueError(f"{label}: {error}") from None


def _print_classes(file: str, logits: npt.NDArray[np.float32], labels: tuple[str, ...], as_json: bool) -> None:
    found = classes(logits).tolist()
    # A file may name fewer classes than it has outputs; a class without a label is called by its number.
    names = [labels[index] if index < len(labels) else str(index) for index in found]
    if as_json:
        document: dict[str, Any] = {"file": file, "images": len(found), "classes": found}
        if labels:
            document["labels"] = names
        emit_json(document)
        return
    for name in names:
        say(name)
