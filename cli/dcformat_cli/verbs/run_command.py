"""`dcformat run`: run a packed file on a data set's test images, or on arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import click
import numpy as np
from dcformat_interop.archives import write_arrays

from dcformat.source import is_url, read_stream
from dcformat_cli import output_summary
from dcformat_cli.accuracy import Evaluation, evaluate
from dcformat_cli.array_files import Array, read_arrays
from dcformat_cli.failures import UnfitError, misuse
from dcformat_cli.group import Choice
from dcformat_cli.input_files import model_source, naming, source
from dcformat_cli.output_files import OutputFile
from dcformat_cli.progress import counting
from dcformat_cli.shared_options import FileName, as_json, data, file_argument, max_memory, max_work, output
from dcformat_cli.terminal import emit_json, say

if TYPE_CHECKING:
    from dcformat_runtime import Session
    from dcformat_runtime.ports import PortInfo


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of the command line; their help texts explain them."""

    file: str
    data: Path | None
    inputs: tuple[tuple[str | None, str], ...]
    output: OutputFile | None
    threads: int | None
    backend: Literal["auto", "numba", "numpy"]
    deterministic: bool
    max_memory: int | None
    max_work: int | None
    as_json: bool

    def check(self) -> None:
        """Raise `click.UsageError` if options contradict each other or the output cannot be written."""
        files = [file for _, file in self.inputs]
        names = [name for name, _ in self.inputs]
        if not files and self.output is not None:
            raise misuse("-o needs --input X.npy")
        if files and self.data is not None:
            raise misuse("expected --data or --input, found both")
        if "-" in files and self.file == "-":
            raise misuse("expected FILE or --input from stdin, found both")
        if files.count("-") > 1:
            raise misuse("--input: expected one file from stdin, found several")
        if len(set(names)) < len(names):
            raise misuse("--input: expected a different NAME=X.npy for each of several inputs, or one .npz archive")
        if self.output is not None:
            self.output.check(self.file, *files)


def _named(_: click.Context, __: click.Parameter, values: Sequence[str]) -> tuple[tuple[str | None, str], ...]:
    """Split each NAME=FILE, unless a file has the whole name; the callback of ``--input``."""
    pairs: list[tuple[str | None, str]] = []
    for text in values:
        name, sign, file = text.partition("=")
        whole = not sign or is_url(text) or Path(text).exists()
        if not whole and not (name and file):
            raise click.BadParameter(f"expected NAME=X.npy, found {text!r}")
        if is_url(text if whole else file):
            raise click.BadParameter(f"expected a file, found the URL {text!r}: download it first")
        pairs.append((None, text) if whole else (name, file))
    return tuple(pairs)


@click.command("run")
@file_argument()
@data()
@click.option(
    "--input",
    "inputs",
    multiple=True,
    type=FileName(),
    callback=_named,
    metavar="[NAME=]X.npy",
    help="Run on this array instead (- for stdin), or on the arrays of an .npz archive. Repeat it for several inputs.",
)
@output("the outputs, Y.npy or Y.npz,", required=False)
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

    With --input, run it on arrays instead, which have the shapes and dtypes that inspect shows. uint8 pixels go through
    the file's preprocessing; float32 input is used unchanged. A network with several inputs takes an .npz archive with
    an array for each name, or a --input NAME=X.npy for each.

    -o names the file for the outputs: .npy for one output, or .npz, which holds each under its name (stdout gets .npy
    if there is one output). Without -o, the label of each input is printed if the file has labels and one output, or
    else a summary of every output.
    """
    _run(RunOptions(**options))


def _run(options: RunOptions) -> None:
    options.check()
    session = _load(options)
    label = source(options.file)[1]
    if not options.inputs:
        _require_images(session, label)
        with _naming_inputs(label):
            result = evaluate(session, options.data)
        _report(options, session, result)
        return
    archive = _is_archive(options.output, len(session.outputs))
    given, files = _read_inputs(options, session.inputs)
    with _naming_inputs(label, files), counting("running") as progress:
        outputs = session.run(given, lambda done, total: progress(done, total, "the inputs"))
    if options.output is None:
        _show(options, session, outputs)
    else:
        _write(options, session, outputs, archive)


def _load(options: RunOptions) -> Session:
    import dcformat_runtime

    content, label = model_source(options.file)
    with naming(label):
        # A session keeps its source, so that it can be pickled.
        kept = content if isinstance(content, Path | str) else bytes(read_stream(content, label, options.max_memory))
        return dcformat_runtime.load(
            kept, threads=options.threads, backend=options.backend, deterministic=options.deterministic,
            max_memory=options.max_memory, max_work=options.max_work,
        )  # fmt: skip


def _require_images(session: Session, label: str) -> None:
    """Raise `UnfitError` if the network cannot classify images."""
    ports = (*session.inputs, *session.outputs)
    if len(ports) > 2 or any(port.shape[:1] != (None,) for port in ports):
        found = f"{', '.join(port.describe() for port in ports)} (give arrays with --input)"
        raise UnfitError(label, "one input and one output, both of (batch, ...), for a data set", found)


def _report(options: RunOptions, session: Session, result: Evaluation) -> None:
    if options.as_json:
        found = {"images": result.images, "correct": result.correct, "accuracy": result.accuracy}
        emit_json({"file": options.file, "backend": session.backend, **found})
    else:
        say(
            f"{options.file}: {result.correct:,} of {result.images:,} test images right: accuracy "
            f"{100 * result.accuracy:.2f} %, error {result.error_percent:.2f} % (backend {session.backend})"
        )


def _is_archive(output: OutputFile | None, count: int) -> bool:
    """Return whether `count` outputs go to an ``.npz`` archive; refuse a name that says otherwise."""
    suffix = "" if output is None or output.path is None else output.path.suffix.lower()
    if suffix == ".npy" and count > 1:
        raise UnfitError(output, f"a name ending in .npz for {count} outputs", suffix)
    return suffix == ".npz" or count > 1


def _read_inputs(options: RunOptions, inputs: Sequence[PortInfo]) -> tuple[dict[str, Array], dict[str, str]]:
    """Return the arrays by the inputs' names, and the file of each."""
    arrays: dict[str, Array] = {}
    files: dict[str, str] = {}
    left = options.max_memory
    for name, file in options.inputs:
        label = "stdin" if file == "-" else file
        found = read_arrays(file, left)
        if isinstance(found, dict):
            if name is not None:
                raise UnfitError(label, f"a .npy array for input {name!r}", "an archive (give it without a name)")
        else:
            found = {_only_name(inputs, label) if name is None else name: found}
        if twice := sorted(arrays.keys() & found.keys()):
            raise UnfitError(label, "each input once", f"{twice[0]!r} in {files[twice[0]]} too")
        arrays |= found
        files |= dict.fromkeys(found, label)
        if left is not None:
            left -= sum(array.nbytes for array in found.values())
    return arrays, files


def _only_name(inputs: Sequence[PortInfo], label: str) -> str:
    if len(inputs) != 1:
        expected = ", ".join(info.describe() for info in inputs)
        raise UnfitError(label, f"arrays for {expected}", "one without a name (--input NAME=X.npy, or an .npz archive)")
    return inputs[0].name


@contextmanager
def _naming_inputs(file: str, inputs: Mapping[str, str] = MappingProxyType({})) -> Iterator[None]:
    """Name the file in errors: that of the array that does not fit the network, or else that of the network."""
    from dcformat_runtime import InputError

    try:
        with naming(file):
            yield
    except InputError as error:
        labels = set(inputs.values())
        only = labels.pop() if len(labels) == 1 else file
        raise ValueError(f"{inputs.get(error.name or '', only)}: {error}") from None


def _show(options: RunOptions, session: Session, outputs: Mapping[str, Array]) -> None:
    found = output_summary.found_classes(session.outputs, outputs)
    names = output_summary.class_names(found, session.labels) if found is not None and session.labels else None
    if options.as_json:
        emit_json(_document(options, session, outputs, classes=found, **({} if names is None else {"labels": names})))
    elif names is not None:
        for name in names:
            say(name)
    else:
        title = f"{options.file}: outputs (backend {session.backend})"
        output_summary.show(title, session.outputs, outputs, session.labels)


def _write(options: RunOptions, session: Session, outputs: Mapping[str, Array], archive: bool) -> None:
    output = options.output
    assert output is not None  # as the caller has made sure
    with output.open() as out:
        if archive:
            write_arrays(output, outputs, out)
        else:
            (array,) = outputs.values()
            np.lib.format.write_array(out, array, allow_pickle=False)
    if options.as_json:
        shape = None if len(outputs) > 1 else list(next(iter(outputs.values())).shape)
        document = _document(options, session, outputs, output=str(output), shape=shape)
        emit_json(document, err=output.to_stdout)


def _document(options: RunOptions, session: Session, outputs: Mapping[str, Array], **more: Any) -> dict[str, Any]:
    first = session.outputs[0]
    return {
        "file": options.file,
        "backend": session.backend,
        "images": len(output_summary.samples(first, outputs[first.name])),
        **more,
        "outputs": [output_summary.as_json(info, outputs[info.name]) for info in session.outputs],
    }
