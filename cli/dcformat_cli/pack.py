"""`dcformat pack`: a checkpoint into a `.dcf` file, values exactly kept."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
from dcformat_interop import Checkpoint, match, read_checkpoint, read_han
from dcformat_interop.kinds import looks_like_checkpoint
from dcformat_interop.safetensors import METADATA_PREFIX

import dcformat
from dcformat.architectures import ARCHITECTURES, Architecture
from dcformat.denormals import denormals
from dcformat.dense import from_dense, negative_zeros
from dcformat.graph import Graph, Preprocessing
from dcformat.layout import MAX_METADATA_BYTES, MAX_NAME_BYTES, MAX_SELF_TEST_SAMPLES
from dcformat.model import Model, Tensor
from dcformat_cli import summary
from dcformat_cli.failures import InputError, misuse
from dcformat_cli.group import Choice
from dcformat_cli.inputs import naming
from dcformat_cli.options import MODES, as_json, numbers, output, size
from dcformat_cli.outputs import Output
from dcformat_cli.terminal import emit_json, note, say, show_notes, warn
from dcformat_cli.writing import packed_model

if TYPE_CHECKING:
    from dcformat.codecs.choose import Mode, RelativeIndex

#: Bytes that packing takes for each element of the tensor at work: positions, codes, and what sorts them.
_WORKING = 40

#: How many times the checkpoint's values are in memory: as they were read, in the form that packs best, and packed.
_HELD = 3


@click.command("pack")
@click.argument("checkpoint", metavar="MODEL", type=click.Path(path_type=Path))
@output("the packed file")
@click.option("--architecture", type=Choice(list(ARCHITECTURES)), help="The network that the tensors belong to.")
@click.option(
    "--mode",
    type=Choice(MODES),
    default="fast",
    show_default=True,
    help="The coder: fast to decode, small, or smallest for small networks.",
)
@click.option(
    "--relative-index",
    type=Choice(("escape", "filler")),
    default="escape",
    show_default=True,
    help="How long runs of zeros are bridged; filler is Deep Compression's way, and means Huffman coding.",
)
@click.option(
    "--mean",
    type=numbers,
    help="The network takes (pixel / 255 - MEAN) / STD; one number or one a channel [0].",
)
@click.option("--std", type=numbers, help="See --mean [1].")
@click.option("--labels", help="Class labels in the order of the outputs, with commas between; or @FILE, one a line.")
@click.option("--metadata", multiple=True, metavar="KEY=VALUE", help="Text to keep in the file; may be repeated.")
@click.option(
    "--reorder-units", is_flag=True, help="Put hidden units in a better order: the same function, a smaller file."
)
@click.option(
    "--fold-scales", is_flag=True, help="Scale hidden units by powers of two where that makes the file smaller."
)
@click.option(
    "--self-test",
    type=click.IntRange(1, MAX_SELF_TEST_SAMPLES),
    metavar="INPUTS",
    help="Keep a test of so many inputs in the file, which verify runs.",
)
@click.option("--skip", multiple=True, metavar="NAME", help="Leave a tensor out; * and ? match, may be repeated.")
@click.option("--key", metavar="PATH", help="Which state_dict of a PyTorch file to take, as in model.state_dict.")
@click.option("--exact", is_flag=True, help="Keep the sign of zeros: by default -0.0 is stored as 0.0.")
@click.option(
    "--max-memory",
    type=size,
    default="4G",
    show_default=True,
    metavar="SIZE",
    help="Refuse a checkpoint that needs more than this while it is packed.",
)
@as_json()
def pack_command(
    checkpoint: Path,
    output: Output,
    architecture: str | None,
    mode: Mode,
    relative_index: RelativeIndex,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    labels: str | None,
    metadata: Sequence[str],
    reorder_units: bool,
    fold_scales: bool,
    self_test: int | None,
    skip: Sequence[str],
    key: str | None,
    exact: bool,
    max_memory: int,
    as_json: bool,
) -> None:
    """Pack MODEL (- for stdin), a state_dict in safetensors, .npz or PyTorch form, into a .dcf file.

    The content decides which form it is, whatever the file is called. Tensors are matched to the architecture by name
    or by order and shape; their names and values are kept exactly. Layers with few distinct values get codebooks.
    What a .dcf file cannot hold (int64 counters, NaN) is left out with a note unless the architecture needs it. A
    .net file is read as the authors of Deep Compression published their SqueezeNet. Without --architecture the
    tensors are packed alone, and the file cannot be run.
    """
    known = ARCHITECTURES[architecture] if architecture is not None else None
    if known is None and any((mean, std, labels, reorder_units, fold_scales, self_test)):
        raise misuse("--mean, --std, --labels, --reorder-units, --fold-scales, --self-test need --architecture")
    pairs = _metadata(metadata)
    output.check(checkpoint, labels[1:] if labels is not None and labels.startswith("@") else None)
    read = _read(checkpoint, known, key, skip, max_memory)
    show_notes(read.notes)
    graph, order = None, list(read.tensors)
    if known is None:
        note("without --architecture the file holds the tensors alone and cannot be run")
    else:
        order = match(read.path, known, read.tensors, read.left_out)
        graph = known.build(order, Preprocessing(_single(mean or (0.0,)), _single(std or (1.0,))))
    held = _tensors(read, order, exact, max_memory)
    model = Model(held, graph, _labels(labels, graph, held), {**_kept(read.metadata), **pairs})
    model = _rewritten(model, mode, reorder_units, fold_scales, self_test)
    with naming(read.path):
        packed = packed_model(model, str(output), mode, relative_index)
    with output.open() as out:
        out.write(packed)
    if as_json:
        with dcformat.open(packed) as content:
            figures = summary.as_json(summary.summarize(content))
        document = {"file": str(output), "mode": mode, "left_out": dict(read.left_out), **figures}
        emit_json(document, err=output.to_stdout)
    else:
        parameters = sum(tensor.size for tensor in model.tensors.values())
        say(summary.size_line(str(output), len(packed), parameters), err=output.to_stdout)


def _tensors(read: Checkpoint, order: Sequence[str], exact: bool, max_memory: int) -> dict[str, Tensor]:
    """Return the tensors in the form that packs best; say what of their values is odd."""
    held = _HELD * sum(dense.values.nbytes for dense in read.tensors.values())
    out: dict[str, Tensor] = {}
    zeros, small = 0, dict[str, int]()
    for name in order:
        dense = read.tensors[name]
        need = held + _WORKING * dense.values.size
        if need > max_memory:
            expected = f"a tensor that takes at most {max_memory:,} bytes to pack (--max-memory)"
            raise InputError(read.path, expected, f"one that may take {need:,} with those beside it", name)
        if count := denormals(dense.values, dense.dtype):
            small[name] = count
        if not exact:
            zeros += negative_zeros(dense.values, dense.dtype)
        out[name] = from_dense(name, dense.values, dense.dtype, dense.scale, exact=exact)
    if zeros:
        were = "negative zeros were stored as zeros" if zeros > 1 else "negative zero was stored as zero"
        note(f"{zeros:,} {were} (--exact keeps them)")
    if small:
        names = ", ".join(list(small)[:5]) + (", ..." if len(small) > 5 else "")
        note(f"{sum(small.values()):,} denormal values, with which processors compute slowly, in {names}")
    return out


def _kept(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return a safetensors file's metadata under the keys that `unpack` looks for."""
    kept = {METADATA_PREFIX + key: value for key, value in metadata.items()}
    for key, value in list(kept.items()):
        if len(key.encode()) > MAX_NAME_BYTES or len(value.encode()) > MAX_METADATA_BYTES:
            warn(f"metadata left out: {key.removeprefix(METADATA_PREFIX)!r} is longer than a .dcf file holds")
            del kept[key]
    return kept


def _rewritten(model: Model, mode: Mode, reorder_units: bool, fold_scales: bool, self_test: int | None) -> Model:
    """Apply what was asked for; everything here keeps the network's function."""
    from dcformat import transforms

    if fold_scales:
        model = transforms.fold_scales(model, mode)
    if reorder_units:
        model = transforms.reorder_units(model, mode)
    if self_test is not None:
        from dcformat_runtime.selftest import with_self_test

        model = with_self_test(model, self_test)
    return model


def _read(path: Path, known: Architecture | None, key: str | None, skip: Sequence[str], max_memory: int) -> Checkpoint:
    if path.suffix.lower() != ".net" or looks_like_checkpoint(path):
        source = sys.stdin.buffer if str(path) == "-" else path
        return read_checkpoint(source, key=key, skip=skip, max_memory=max_memory)
    if known is None:
        raise misuse(f"{path}: a .net file has no shapes in it: give --architecture")
    if key or skip:
        raise misuse(f"{path}: --key and --skip need a checkpoint with names, not a .net file")
    flat = [name for name, shape in known.shapes.items() if name.endswith(".weight") and len(shape) != 4]
    if flat:
        raise InputError(path, "an architecture of convolutions alone for a .net file", f"{known.name}'s {flat[0]}")
    return Checkpoint(str(path), read_han(path, known), (), {}, {})


def _single(values: tuple[float, ...]) -> tuple[float, ...]:
    """Round to float32, which is what a file holds and what a network computes in."""
    return tuple(float(np.float32(value)) for value in values)


def _metadata(items: Sequence[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not key or not equals:
            raise misuse(f"--metadata: expected KEY=VALUE, found {item!r}")
        if key in pairs:
            raise misuse(f"--metadata: expected each key once, found {key!r} again")
        pairs[key] = value
    return pairs


def _labels(text: str | None, graph: Graph | None, tensors: dict[str, Tensor]) -> tuple[str, ...]:
    if text is None or graph is None:
        return ()
    if text.startswith("@"):
        path = Path(text[1:])
        try:
            labels = tuple(path.read_text("utf-8").splitlines())
        except UnicodeDecodeError:
            raise InputError(path, "labels in UTF-8, one a line", "other bytes") from None
    else:
        labels = tuple(label.strip() for label in text.split(","))
    outputs = graph.shapes({name: tensor.shape for name, tensor in tensors.items()})[-1][0]
    if len(labels) != outputs:
        raise InputError("--labels", f"{outputs} labels", len(labels))
    return labels
