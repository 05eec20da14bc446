"""`dcformat pack`: a checkpoint into a `.dcf` file, values and zeros exactly kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from dcformat.architectures import ARCHITECTURES, Architecture
from dcformat.dense import from_dense
from dcformat.files import check_output
from dcformat.graph import Graph, Preprocessing
from dcformat.layout import MAX_SELF_TEST_SAMPLES
from dcformat.model import Model, Tensor
from dcformat_cli import summary
from dcformat_cli.checkpoints import Dense, read_checkpoint
from dcformat_cli.failures import InputError, misuse
from dcformat_cli.han import read_han
from dcformat_cli.inputs import opened
from dcformat_cli.matching import match
from dcformat_cli.options import MODES, as_json, numbers, output
from dcformat_cli.terminal import emit_json, note, say
from dcformat_cli.writing import write_model

if TYPE_CHECKING:
    from dcformat.codecs.choose import Mode, RelativeIndex


@click.command("pack")
@click.argument("checkpoint", metavar="MODEL", type=click.Path(path_type=Path))
@output("the packed file")
@click.option("--architecture", type=click.Choice(list(ARCHITECTURES)), help="The network that the tensors belong to.")
@click.option(
    "--mode",
    type=click.Choice(MODES),
    default="fast",
    show_default=True,
    help="The coder: fast to decode, small, or smallest for small networks.",
)
@click.option(
    "--relative-index",
    type=click.Choice(("escape", "filler")),
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
@as_json()
def pack_command(
    checkpoint: Path,
    output: Path,
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
    as_json: bool,
) -> None:
    """Pack MODEL, a state_dict in .safetensors, .npz, .pt or .pth form, into a .dcf file.

    Tensors are matched to the architecture by name or by order and shape; their names, zeros and values are
    kept exactly. Layers with few distinct values get codebooks. A .net file is read as the authors of Deep
    Compression published their SqueezeNet. Without --architecture the tensors are packed alone, and the file
    cannot be run.
    """
    known = ARCHITECTURES[architecture] if architecture is not None else None
    if known is None and any((mean, std, labels, reorder_units, fold_scales, self_test)):
        raise misuse("--mean, --std, --labels, --reorder-units, --fold-scales, --self-test need --architecture")
    pairs = _metadata(metadata)
    check_output(output)
    tensors = _read(checkpoint, known)
    graph, order = None, list(tensors)
    if known is None:
        note("without --architecture the file holds the tensors alone and cannot be run")
    else:
        order = match(checkpoint, known, tensors)
        graph = known.build(order, Preprocessing(_single(mean or (0.0,)), _single(std or (1.0,))))
    held = {n: from_dense(n, tensors[n].values, tensors[n].dtype, tensors[n].scale) for n in order}
    model = Model(held, graph, _labels(labels, graph, held), pairs)
    model = _rewritten(model, mode, reorder_units, fold_scales, self_test)
    write_model(model, output, mode, relative_index)
    with opened(str(output)) as content:
        figures = summary.summarize(content)
    if as_json:
        emit_json({"file": str(output), "mode": mode, **summary.as_json(figures)})
    else:
        say(summary.headline(str(output), figures))


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


def _read(path: Path, known: Architecture | None) -> dict[str, Dense]:
    if path.suffix.lower() != ".net":
        return read_checkpoint(path)
    if known is None:
        raise misuse(f"{path}: a .net file has no shapes in it: give --architecture")
    flat = [name for name, shape in known.shapes.items() if name.endswith(".weight") and len(shape) != 4]
    if flat:
        raise InputError(path, "an architecture of convolutions alone for a .net file", f"{known.name}'s {flat[0]}")
    return read_han(path, known)


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
