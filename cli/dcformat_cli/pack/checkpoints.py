"""Packs a checkpoint in memory, with or without a network."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from dcformat_interop import Checkpoint, match, read_checkpoint, read_deep_compression_net
from dcformat_interop.checkpoint_reader import require_all
from dcformat_interop.kinds import looks_like_checkpoint
from dcformat_interop.misfits import require_fit
from dcformat_interop.packing.checkpoint_packing import value_notes
from dcformat_interop.packing.shards import find_shards, is_several
from dcformat_interop.safetensors import METADATA_PREFIX

from dcformat.denormals import denormals
from dcformat.dense import from_dense, negative_zeros
from dcformat.layout import MAX_METADATA_BYTES, MAX_NAME_BYTES
from dcformat.model import Model, Tensor
from dcformat_cli.failures import UnfitError, misuse
from dcformat_cli.input_files import naming
from dcformat_cli.network_options import preprocessing, read_labels
from dcformat_cli.pack import delta_packing
from dcformat_cli.pack.models import packed, write_and_report
from dcformat_cli.pack.pack_options import PackOptions
from dcformat_cli.terminal import note, show_notes, warn

#: Bytes needed to pack each element of a tensor: indices, codes, and the arrays to sort them.
_WORKING = 40

#: Number of copies of the checkpoint's values in memory: as read, in the form that packs best, and packed.
_HELD = 3


def pack_checkpoint(options: PackOptions) -> None:
    """Pack a checkpoint, matched to an architecture if the user named one."""
    architecture, pairs = options.known, options.pairs()
    options.output.check(*_files(options), options.labels_file, options.base)
    read = _read(options)
    if architecture is None:  # otherwise, `match` wants all that the network needs
        require_all(read.path, read.left_out)
    show_notes(read.notes)
    graph, order = None, list(read.tensors)
    if architecture is None and options.base is None:
        note("without --architecture, the file holds only tensors and cannot be run")
    elif architecture is not None:
        order = match(read.path, architecture, read.tensors, read.left_out)
        graph = architecture.build(order, preprocessing(options.mean, options.std))
    require_fit(read.path, [(name, read.tensors[name].values.shape) for name in order])
    tensors = _tensors(read, order, options)
    labels = read_labels(options.labels, graph, tensors)
    model = Model(tensors, graph, labels, {**kept_metadata(read.metadata), **pairs})
    if options.base is not None and architecture is None:
        model = delta_packing.with_network_of(options.base, model, options.max_memory)
    with naming(read.path):
        made = packed(model, options)
    write_and_report(options, read.left_out, model, made)


def _files(options: PackOptions) -> list[str | Path]:
    """Return the files of a checkpoint."""
    if not is_several(options.checkpoint):
        return [options.checkpoint]
    return [shard.path for shard in find_shards(options.checkpoint, max_memory=options.max_memory).shards]


def kept_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return a safetensors file's metadata under the keys that `unpack` looks for."""
    kept = {METADATA_PREFIX + key: value for key, value in metadata.items()}
    for key, value in list(kept.items()):
        if len(key.encode()) > MAX_NAME_BYTES or len(value.encode()) > MAX_METADATA_BYTES:
            warn(f"metadata left out: {key.removeprefix(METADATA_PREFIX)!r} is longer than a .dcf file holds")
            del kept[key]
    return kept


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
