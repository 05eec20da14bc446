"""`dcformat pack`: turn a checkpoint into a `.dcf` file that keeps its values exactly."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from dcformat_interop import Checkpoint, match, read_checkpoint, read_deep_compression_net
from dcformat_interop.kinds import looks_like_checkpoint
from dcformat_interop.packing.pack import value_notes
from dcformat_interop.packing.shards import is_streamed
from dcformat_interop.safetensors import METADATA_PREFIX

import dcformat
from dcformat.architectures import ARCHITECTURES, Architecture
from dcformat.denormals import denormals
from dcformat.dense import from_dense, negative_zeros
from dcformat.errors import FormatError
from dcformat.layout import MAX_METADATA_BYTES, MAX_NAME_BYTES, MAX_SELF_TEST_SAMPLES
from dcformat.model import Model, Tensor
from dcformat.records import replace
from dcformat_cli import delta_packing, networks, summary
from dcformat_cli.failures import UnfitError, misuse
from dcformat_cli.group import Choice
from dcformat_cli.input_files import naming
from dcformat_cli.network_options import check_channels, labels_file, preprocessing, read_labels
from dcformat_cli.networks import network_kind
from dcformat_cli.options import MODES, FileName, as_json, base, max_memory, numbers, output, refuse, size
from dcformat_cli.output_files import Output
from dcformat_cli.terminal import emit_json, note, say, show_notes, warn
from dcformat_cli.writing import packed_model

if TYPE_CHECKING:
    from dcformat.codecs import Mode, RelativeIndex

#: Bytes needed to pack each element of a tensor: indices, codes, and the arrays to sort them.
_WORKING = 40

#: Number of copies of the checkpoint's values in memory: as read, in the form that packs best, and packed.
_HELD = 3

#: The options that say where safetensors files are coded, and how the output is divided.
_SPREAD = ("jobs", "engine", "address", "shards")

#: The options that apply to a ``.dcf`` file and its base.
_TAKEN_BY_DCF = {"checkpoint", "output", "base", "mode", "max_memory", "as_json"}


@dataclass(frozen=True, slots=True)
class PackOptions:
    """The options of the command line; their help texts explain them."""

    checkpoint: Path
    output: Output
    base: str | None
    architecture: str | None
    mode: Mode
    relative_index: RelativeIndex
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    labels: str | None
    metadata: Sequence[str]
    reorder_units: bool
    fold_scales: bool
    self_test: int | None
    skip: Sequence[str]
    key: str | None
    exact: bool
    float32: bool
    dims: Sequence[str]
    values: Sequence[str]
    max_memory: int | None
    as_json: bool
    jobs: int
    engine: str
    address: str | None
    shards: int | None

    @property
    def known(self) -> Architecture | None:
        """The named architecture."""
        return None if self.architecture is None else ARCHITECTURES[self.architecture]

    @property
    def need_architecture(self) -> bool:
        """Whether the user gave an option that concerns a network."""
        return any((self.mean, self.std, self.labels, self.reorder_units, self.fold_scales, self.self_test))

    @property
    def labels_file(self) -> str | None:
        """The file that ``--labels @FILE`` names."""
        return labels_file(self.labels)


@click.command("pack")
@click.argument("checkpoint", metavar="MODEL", type=FileName(path_type=Path))
@output("the packed file")
@base()
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
    help="How to bridge long runs of zeros; filler is the way of Deep Compression, and implies Huffman coding.",
)
@click.option(
    "--mean",
    type=numbers,
    help="The network's input is (pixel / 255 - MEAN) / STD. One number, or one for each channel [default: 0].",
)
@click.option("--std", type=numbers, help="See --mean [default: 1].")
@click.option(
    "--labels", help="Class labels in the order of the outputs: separated by commas, or @FILE with one label per line."
)
@click.option("--metadata", multiple=True, metavar="KEY=VALUE", help="Text to store in the file; may be repeated.")
@click.option(
    "--reorder-units",
    is_flag=True,
    help="Reorder hidden units to make the file smaller; the network still computes the same function.",
)
@click.option(
    "--fold-scales",
    is_flag=True,
    help="Scale hidden units by powers of two where that makes the file smaller; the function stays the same.",
)
@click.option(
    "--self-test",
    type=click.IntRange(1, MAX_SELF_TEST_SAMPLES),
    metavar="INPUTS",
    help="Store a self-test with this many inputs in the file; verify runs it.",
)
@click.option("--skip", multiple=True, metavar="NAME", help="Leave a tensor out (wildcards: * and ?); may be repeated.")
@click.option("--key", metavar="PATH", help="The state_dict of a PyTorch file to take, such as model.state_dict.")
@click.option(
    "--dim",
    "dims",
    multiple=True,
    metavar="NAME=SIZE",
    help="Fix a dimension that a network leaves open, by its name or as INPUT.AXIS; may be repeated.",
)
@click.option(
    "--set",
    "values",
    multiple=True,
    metavar="INPUT=VALUE",
    help="Make an input of a network constant: numbers, or @FILE.npy; may be repeated.",
)
@click.option(
    "--float32",
    is_flag=True,
    help="Store a checkpoint's float64 tensors as float32 if that keeps every value, and round those of networks.",
)
@click.option("--exact", is_flag=True, help="Keep the sign of zeros; by default -0.0 becomes 0.0.")
@max_memory()
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes that code safetensors files; the output does not depend on their number, but memory does.",
)
@click.option(
    "--engine",
    type=Choice(("local", "ray")),
    default="local",
    show_default=True,
    help="Where safetensors files are coded: on this machine, or on a Ray cluster that sees them under the same path.",
)
@click.option("--address", help="With --engine ray: the address of the cluster [default: a new one on this machine].")
@click.option(
    "--shards",
    type=size,
    metavar="SIZE",
    help="Write files of at most about this size, and an index, into the directory that -o names.",
)
@as_json()
def pack_command(**options: Any) -> None:
    """Pack MODEL: a state_dict (safetensors, .npz, PyTorch; - for stdin) or a network (ONNX, TFLite, .pt2).

    MODEL may also be a directory with safetensors files, or their index (*.safetensors.index.json). Safetensors files
    of any size are packed tensor by tensor; after an interruption, the same command continues.

    The command recognises MODEL by its content, not by its name. It matches tensors to the architecture by name, or by
    order and shape, keeps their names and values exactly, and gives codebooks to layers with few distinct values. It
    leaves out, with a note, what a .dcf file cannot hold, such as text or complex128. A .net file is taken for the
    SqueezeNet that the authors of Deep Compression published. Without --architecture, the file holds only the tensors
    and cannot be run.

    An ONNX or TensorFlow Lite model, or a program that torch.export.save wrote, holds its own network. It is packed if
    all of its operators can be, and if the packed network computes what onnxruntime, onnx's reference evaluator, LiteRT
    or PyTorch computes from random inputs.

    With --base, the output is a delta: it holds only what changes from OLD.dcf, and `dcformat apply` makes the new file
    from both. MODEL may then also be a .dcf file, and a checkpoint takes its network from OLD.dcf.
    """
    _pack(PackOptions(**options))


def _pack(options: PackOptions) -> None:
    output, architecture = options.output, options.known
    if options.base is not None:
        if options.base == "-":
            raise misuse("--base: expected a file that can be read twice, found - (stdin)")
        refuse("not for a delta, which has no relative index", "relative_index")
    pairs = _metadata(options.metadata)
    if delta_packing.is_dcf(options.checkpoint):
        _pack_dcf(options)
        return
    if network_kind(options.checkpoint) is not None:
        _pack_network(options, pairs)
        return
    if options.dims or options.values:
        raise misuse("--dim and --set need an ONNX model or a PyTorch program, or --dim a TensorFlow Lite model")
    if architecture is None and options.need_architecture:
        raise misuse("--mean, --std, --labels, --reorder-units, --fold-scales, --self-test need --architecture")
    whole = options.base is not None or options.relative_index == "filler" or options.float32
    if architecture is None and not whole and is_streamed(options.checkpoint):
        _pack_stream(options, pairs)
        return
    refuse("only for safetensors files without --architecture, --base, --float32 and --relative-index", *_SPREAD)
    if options.checkpoint.is_dir():
        expected = "a single file, for --architecture, --base, --float32 or --relative-index filler"
        raise UnfitError(options.checkpoint, expected, "a directory")
    output.check(options.checkpoint, options.labels_file, options.base)
    read = _read(options)
    show_notes(read.notes)
    graph, order = None, list(read.tensors)
    if architecture is None and options.base is None:
        note("without --architecture, the file holds only tensors and cannot be run")
    elif architecture is not None:
        order = match(read.path, architecture, read.tensors, read.left_out)
        graph = architecture.build(order, preprocessing(options.mean, options.std))
    tensors = _tensors(read, order, options)
    labels = read_labels(options.labels, graph, tensors)
    model = _rewritten(Model(tensors, graph, labels, {**_kept(read.metadata), **pairs}), options)
    if options.base is not None and architecture is None:
        model = delta_packing.with_network_of(options.base, model, options.max_memory)
    with naming(read.path):
        packed = _packed(model, options)
    with output.open() as out:
        out.write(packed)
    _report(options, read.left_out, model, packed)


def _pack_stream(options: PackOptions, pairs: Mapping[str, str]) -> None:
    """Pack safetensors files without a network, tensor by tensor."""
    from dcformat_cli.streaming import Spread, StreamOptions, pack_stream

    if options.key is not None:
        expected = "a PyTorch file, which may hold several mappings, with a key"
        raise UnfitError(options.checkpoint, expected, "safetensors")
    if options.address is not None and options.engine != "ray":
        raise misuse("--address needs --engine ray")
    if options.engine == "ray" and options.jobs > 1:
        raise misuse("--jobs is for --engine local: a Ray cluster knows how many processes it has")
    stream = StreamOptions(
        checkpoint=options.checkpoint,
        output=options.output,
        mode=options.mode,
        skip=options.skip,
        exact=options.exact,
        max_memory=options.max_memory,
        as_json=options.as_json,
        spread=Spread(options.jobs, options.engine, options.address, options.shards),
    )
    pack_stream(stream, lambda metadata: {**_kept(metadata), **pairs})


def _pack_network(options: PackOptions, pairs: Mapping[str, str]) -> None:
    """Pack an ONNX or TensorFlow Lite model or a PyTorch program, after a check that it computes the same."""
    if options.architecture or options.key or options.skip:
        given = networks.network_name(options.checkpoint)
        raise misuse(f"--architecture, --key and --skip are for checkpoints: {given} holds its own network")
    refuse("only for safetensors files, not for a network", *_SPREAD)
    if network_kind(options.checkpoint) == "TFLite":
        refuse("not for a TensorFlow Lite model", "float32")
    path, output = options.checkpoint, options.output
    output.check(path, options.labels_file, options.base)
    with naming(str(path)):
        imported = networks.read_network(
            path, options.dims, options.values, options.float32, options.exact, options.max_memory
        )
    model = imported.model
    graph = model.graph
    if graph is not None and (options.mean or options.std):
        graph = replace(graph, preprocessing=preprocessing(options.mean, options.std))
        check_channels(path, preprocessing(options.mean, options.std), graph)
    labels = read_labels(options.labels, graph, model.tensors)
    model = _rewritten(replace(model, graph=graph, labels=labels, metadata=pairs), options)
    with naming(str(path)):
        whole = packed_model(model, str(output), options.mode, options.relative_index)
        note(networks.describe(networks.check(imported, whole, options.max_memory)))
        packed = whole if options.base is None else _packed(model, options)
    with output.open() as out:
        out.write(packed)
    _report(options, {}, model, packed)


def _pack_dcf(options: PackOptions) -> None:
    """Pack a ``.dcf`` file as what changes from its base."""
    path, output = options.checkpoint, options.output
    if options.base is None:
        raise misuse(f"{path}: a .dcf file is packed already; --base OLD.dcf stores what changes from another one")
    others = {field.name for field in fields(options)} - _TAKEN_BY_DCF
    refuse(f"{path} is taken as it is, and only --base, --mode, --max-memory and -o apply to it", *others)
    output.check(path, options.base)
    model = dcformat.load(path, max_memory=options.max_memory)
    packed = _packed(model, options)
    with output.open() as out:
        out.write(packed)
    _report(options, {}, model, packed)


def _packed(model: Model, options: PackOptions) -> bytes:
    """Return the model's bytes, or those of its delta."""
    if options.base is not None:
        return delta_packing.packed_delta(model, options.base, str(options.output), options.mode, options.max_memory)
    return packed_model(model, str(options.output), options.mode, options.relative_index)


def _report(options: PackOptions, left_out: Mapping[str, str], model: Model, packed: bytes) -> None:
    output = options.output
    if options.as_json:
        with dcformat.open(packed) as content:
            figures = summary.as_json(summary.summarize(content))
            if content.delta is not None:
                figures["delta"] = delta_packing.as_json(content.delta)
        document = {"file": str(output), "mode": options.mode, "left_out": dict(left_out), **figures}
        emit_json(document, err=output.to_stdout)
    else:
        parameters = sum(tensor.size for tensor in model.tensors.values())
        with dcformat.open(packed) as content:
            delta = content.delta
        if delta is not None:
            say(delta_packing.line(str(output), len(packed), delta, model), err=output.to_stdout)
            return
        say(summary.size_line(str(output), len(packed), parameters), err=output.to_stdout)


def _tensors(read: Checkpoint, order: Sequence[str], options: PackOptions) -> dict[str, Tensor]:
    """Return the tensors in the form that packs best, and print notes on unusual values."""
    held = _HELD * sum(dense.values.nbytes for dense in read.tensors.values())
    out: dict[str, Tensor] = {}
    zeros, small = 0, dict[str, int]()
    for name in order:
        dense = read.tensors[name]
        need = held + _WORKING * dense.values.size
        if options.max_memory is not None and need > options.max_memory:
            expected = f"a tensor that takes at most {options.max_memory:,} bytes to pack (--max-memory)"
            raise UnfitError(read.path, expected, f"one that may take {need:,} together with the others", name)
        if count := denormals(dense.values, dense.dtype):
            small[name] = count
        if not options.exact:
            zeros += negative_zeros(dense.values, dense.dtype)
        out[name] = from_dense(name, dense.values, dense.dtype, dense.scale, exact=options.exact)
    show_notes(value_notes(zeros, small))
    return out


def _kept(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return a safetensors file's metadata under the keys that `unpack` looks for."""
    kept = {METADATA_PREFIX + key: value for key, value in metadata.items()}
    for key, value in list(kept.items()):
        if len(key.encode()) > MAX_NAME_BYTES or len(value.encode()) > MAX_METADATA_BYTES:
            warn(f"metadata left out: {key.removeprefix(METADATA_PREFIX)!r} is longer than a .dcf file holds")
            del kept[key]
    return kept


def _rewritten(model: Model, options: PackOptions) -> Model:
    """Apply the requested transforms, all of which keep the network's function."""
    from dcformat import transforms

    if options.fold_scales:
        model = transforms.fold_scales(model, options.mode)
    if options.reorder_units:
        model = transforms.reorder_units(model, options.mode)
    if options.self_test is not None:
        from dcformat_runtime import InputError
        from dcformat_runtime.self_testing import with_self_test

        try:
            model = with_self_test(model, options.self_test)
        except FormatError:
            raise
        except InputError as error:
            raise ValueError(f"{options.checkpoint}: self-test: {error}") from None
        except ValueError as error:
            raise ValueError(f"{options.checkpoint}: {error}") from None
    return model


def _read(options: PackOptions) -> Checkpoint:
    path, architecture, key, skip = options.checkpoint, options.known, options.key, options.skip
    if path.suffix.lower() != ".net" or looks_like_checkpoint(path):
        source = sys.stdin.buffer if str(path) == "-" else path
        single = options.float32 or architecture is not None
        return read_checkpoint(source, key=key, skip=skip, single=single, max_memory=options.max_memory)
    if architecture is None:
        raise misuse(f"{path}: a .net file does not hold the shapes of its tensors: give --architecture")
    if key or skip:
        raise misuse(f"{path}: --key and --skip need a checkpoint with names, not a .net file")
    flat = [name for name, shape in architecture.shapes.items() if name.endswith(".weight") and len(shape) != 4]
    if flat:
        found = f"{architecture.name}'s {flat[0]}"
        raise UnfitError(path, "an architecture that has only convolutions, for a .net file", found)
    return Checkpoint(str(path), read_deep_compression_net(path, architecture), (), {}, {})


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
