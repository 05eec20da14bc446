"""Packs a network from another format, after a check that it computes the same."""

from __future__ import annotations

from dcformat.records import replace
from dcformat_cli import foreign_networks
from dcformat_cli.input_files import naming
from dcformat_cli.network_options import check_channels, preprocessing, read_labels
from dcformat_cli.pack.models import packed, rewritten, write_and_report
from dcformat_cli.pack.pack_options import PackOptions
from dcformat_cli.terminal import note
from dcformat_cli.writing import packed_model


def pack_network(options: PackOptions) -> None:
    """Pack an ONNX or TensorFlow Lite model or a PyTorch program."""
    path, pairs = options.checkpoint, options.pairs()
    options.output.check(path, options.labels_file, options.base)
    with naming(str(path)):
        imported = foreign_networks.read_network(
            path, options.dims, options.values, options.float32, options.exact, options.max_memory
        )
    model = imported.model
    graph = model.graph
    if graph is not None and (options.mean or options.std):
        graph = replace(graph, preprocessing=preprocessing(options.mean, options.std))
        check_channels(path, preprocessing(options.mean, options.std), graph)
    labels = read_labels(options.labels, graph, model.tensors)
    model = replace(model, graph=graph, labels=labels, metadata=pairs)
    with naming(str(path)):
        made = packed(model, options)
        whole = made.data
        if options.base is not None:
            whole = packed_model(rewritten(model, made.mode, options), str(options.output), made.mode)
        note(foreign_networks.describe(foreign_networks.check(imported, whole, options.max_memory)))
    write_and_report(options, {}, model, made)
