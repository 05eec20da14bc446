"""`dcformat pack`: turn a checkpoint into a `.dcf` file that keeps its values exactly."""

from __future__ import annotations

import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click
from dcformat_interop.packing.shards import is_streamed

import dcformat
from dcformat.architectures import ARCHITECTURES
from dcformat.layout import MAX_SELF_TEST_SAMPLES
from dcformat_cli import foreign_networks
from dcformat_cli.failures import UnfitError, misuse
from dcformat_cli.group import Choice
from dcformat_cli.input_files import spooled
from dcformat_cli.pack import delta_packing
from dcformat_cli.pack.checkpoints import pack_checkpoint
from dcformat_cli.pack.models import packed, write_and_report
from dcformat_cli.pack.network_packing import pack_network
from dcformat_cli.pack.pack_options import PackOptions
from dcformat_cli.shared_options import (
    LocalFile,
    as_json,
    base,
    check_seconds,
    decode_seconds,
    max_memory,
    mode,
    numbers,
    output,
    refuse,
    size,
)

#: The options that say where safetensors files are coded, and how the output is divided.
_SPREAD = ("jobs", "engine", "address", "shards")

#: The options that apply to a ``.dcf`` file and its base.
_TAKEN_BY_DCF = {"checkpoint", "output", "base", "mode", "seconds", "max_memory", "as_json"}


@click.command("pack")
@click.argument("checkpoint", metavar="MODEL", type=LocalFile(path_type=Path))
@output("the packed file")
@base()
@click.option("--architecture", type=Choice(list(ARCHITECTURES)), help="The network that the tensors belong to.")
@mode("the file")
@decode_seconds()
@click.option(
    "--relative-index",
    type=Choice(("escape", "filler")),
    default="escape",
    show_default=True,
    help="How to bridge long runs of zeros; filler is the method of Deep Compression, and implies Huffman coding.",
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

    MODEL may also be a directory with safetensors files, their index (*.safetensors.index.json), or a repository in the
    Hugging Face cache (org/name). Safetensors files of any size are packed tensor by tensor; after an interruption, the
    same command continues.

    The command recognises MODEL by its content, not by its name. It matches tensors to the architecture by name, or by
    order and shape, keeps their names and values exactly, and gives codebooks to layers with few distinct values. A
    note names the entries that a .dcf file cannot hold, such as text or complex128; they are left out. A .net file is
    read as the SqueezeNet that the authors of Deep Compression published. Without --architecture, the file holds only
    the tensors and cannot be run.

    An ONNX or TensorFlow Lite model, or a program that torch.export.save wrote, holds its own network. It is packed if
    all of its operators can be, and if the packed network computes the same outputs from random inputs as onnxruntime,
    onnx's reference evaluator, LiteRT or PyTorch.

    With --base, the output is a delta: it holds only what changes from OLD.dcf, and `dcformat apply` makes the new file
    from both. MODEL may then also be a .dcf file, and a checkpoint takes its network from OLD.dcf.
    """
    _pack(PackOptions(**options))


def _pack(options: PackOptions) -> None:
    check_seconds(options.mode, options.seconds)
    if options.base is not None:
        if options.base == "-":
            raise misuse("--base: expected a file that can be read twice, found - (stdin)")
        refuse("not for a delta, which has no relative index", "relative_index")
    options.pairs()  # Refuse them before anything is read.
    if str(options.checkpoint) != "-":
        options.checkpoint.stat()  # Other options depend on the kind of the file; a missing one has none.
    if str(options.checkpoint) == "-" and foreign_networks.is_piped_network(sys.stdin.buffer):
        options.output.check(options.checkpoint, options.labels_file, options.base)
        with spooled("-") as path:
            _pack_file(replace(options, checkpoint=path))
        return
    _pack_file(options)


def _pack_file(options: PackOptions) -> None:
    if delta_packing.is_dcf(options.checkpoint):
        _pack_dcf(options)
        return
    kind = foreign_networks.network_kind(options.checkpoint)
    if kind is not None:
        if options.architecture or options.key or options.skip:
            given = foreign_networks.network_name(options.checkpoint)
            raise misuse(f"--architecture, --key and --skip are for checkpoints: {given} holds its own network")
        refuse("only for safetensors files, not for a network", *_SPREAD)
        if kind == "TFLite":
            refuse("not for a TensorFlow Lite model", "float32")
        pack_network(options)
        return
    if options.dims or options.values:
        raise misuse("--dim and --set need an ONNX model or a PyTorch program, or --dim a TensorFlow Lite model")
    if options.known is None and options.need_architecture:
        raise misuse("--mean, --std, --labels, --reorder-units, --fold-scales, --self-test need --architecture")
    whole = options.base is not None or options.relative_index == "filler" or options.float32
    if options.known is None and not whole and is_streamed(options.checkpoint):
        _pack_stream(options)
        return
    refuse("only for safetensors files without --architecture, --base, --float32 and --relative-index", *_SPREAD)
    pack_checkpoint(options)


def _pack_stream(options: PackOptions) -> None:
    """Pack safetensors files without a network, tensor by tensor."""
    from dcformat_cli.pack.streams import Spread, pack_stream

    if options.key is not None:
        expected = "a PyTorch file, which may hold several mappings, with a key"
        raise UnfitError(options.checkpoint, expected, "safetensors")
    if options.address is not None and options.engine != "ray":
        raise misuse("--address needs --engine ray")
    if options.engine == "ray" and options.jobs > 1:
        raise misuse("--jobs is for --engine local: a Ray cluster knows how many processes it has")
    if options.shards == 0:
        raise misuse("--shards: expected a size of at least 1 byte, found 0")
    pack_stream(options, Spread(options.jobs, options.engine, options.address, options.shards))


def _pack_dcf(options: PackOptions) -> None:
    """Pack a ``.dcf`` file as what changes from its base."""
    path = options.checkpoint
    if options.base is None:
        raise misuse(f"{path}: a .dcf file is packed already; --base OLD.dcf stores what changes from another one")
    others = {field.name for field in fields(options)} - _TAKEN_BY_DCF
    refuse(f"{path} is packed unchanged, and only --base, --mode, --max-memory and -o apply to it", *others)
    options.output.check(path, options.base)
    model = dcformat.load(path, max_memory=options.max_memory)
    write_and_report(options, {}, model, packed(model, options))
