"""`dcformat inspect`: show what a file holds and what its bytes are for."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

import click

from dcformat.errors import FormatError
from dcformat.graph import Preprocessing, with_batch
from dcformat.wording import counted, shaped
from dcformat_cli import byte_map, sharded, summary, tensor_details
from dcformat_cli.failures import misuse
from dcformat_cli.group import suggestion
from dcformat_cli.input_files import opened
from dcformat_cli.report.stages import recorded_stages
from dcformat_cli.shared_options import as_json, file_argument, max_memory, max_work, refuse
from dcformat_cli.terminal import TextTable, emit_json, say

if TYPE_CHECKING:
    from dcformat import DcfFile
    from dcformat.graph import Graph, Operand


@click.command("inspect")
@file_argument()
@click.option("--tensor", "tensors", multiple=True, metavar="NAME",
              help="Show more about this tensor: its codebook, values and rows; may be repeated.")  # fmt: skip
@click.option("--hex", "parts", is_flag=True,
              help="Show each part's first bytes, offset and section of the specification.")  # fmt: skip
@click.option("--memory", is_flag=True, help="Also show the memory that loading the file would take.")
@max_memory()
@max_work()
@as_json()
def inspect_command(
    file: str,
    tensors: tuple[str, ...],
    parts: bool,
    memory: bool,
    max_memory: int | None,
    max_work: int | None,
    as_json: bool,
) -> None:
    """Show what FILE (- for stdin) holds and what its bytes are for.

    As in the tables of the Deep Compression paper, bits per weight and per index are averages over the stored weights,
    after coding. The column "codebook" has the number of shared values. The rows of the second table add up to the size
    of the file.

    --tensor shows tensors in detail instead, and --hex the places of the parts of the file, or of these tensors.

    FILE may also be the index of several files (*.dcf.index.json), or their directory.
    """
    if sharded.shards(file, max_memory) is not None:
        refuse("give one of the files instead of their index or directory", "tensors", "parts", "memory")
        sharded.inspect(file, max_memory, max_work, as_json)
        return
    with opened(file, max_memory, max_work, delta=True) as content:
        for name in tensors:
            if name not in content.names:
                raise misuse(f"{file}: no tensor {name!r}.{suggestion(name, content.names)}")
        found = [tensor_details.details(content, name) for name in tensors]
        places = _parts(content, tensors) if parts else []
        if as_json:
            more = ({"details": found} if tensors else {}) | ({"parts": byte_map.as_json(places)} if parts else {})
            emit_json({**_document(file, content), **more, **_memory_document(content, memory)})
            return
        if not tensors and not parts:
            _show(file, content)
        for each in found:
            tensor_details.show(content, each)
        if parts:
            byte_map.table(places).show()
        if memory:
            say("")
            _memory_table(content).show()


def _parts(content: DcfFile, tensors: tuple[str, ...]) -> list[byte_map.FilePart]:
    if not tensors:
        return list(byte_map.file_parts(content))
    return [part for name in tensors for part in byte_map.tensor_parts(content, name)]


def _show(name: str, content: DcfFile) -> None:
    figures = summary.summarize(content)
    say(summary.headline(name, figures))
    say(f"format {content.version[0]}.{content.version[1]}, content digest {content.digest.hex()}")
    for line in _network(content):
        say(line)
    if content.labels:
        more = f" ... ({len(content.labels)})" if len(content.labels) > 12 else ""
        say(f"labels: {', '.join(content.labels[:12])}{more}")
    for key, value in content.metadata.items():
        say(f"{key}: {value}")
    if content.self_test is not None:
        say(f"self-test: {counted(content.self_test.samples, 'input')} from seed {content.self_test.seed}")
    for extension in content.extensions:
        say(f"unknown section of kind {extension.kind}, {counted(len(extension.payload), 'byte')}, kept unchanged")
    say("")
    summary.show_tables(figures)


def _network(content: DcfFile) -> list[str]:
    graph = content.graph
    if content.delta is not None:
        from dcformat_cli.pack import delta_packing

        made = f"{delta_packing.parts(content.delta)}, new content digest {content.delta.result.hex()}"
        return [f"a delta from a base with content digest {content.delta.base.hex()}: {made}"]
    if graph is None:
        return ["no network, only tensors (pack with --architecture to make a file that runs)"]
    kinds: dict[str, int] = {}
    for node in graph.nodes:
        kinds[node.kind] = kinds.get(node.kind, 0) + 1
    operators = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    pixels = "" if graph.preprocessing is None else f"; pixels: {_pixels(graph.preprocessing)}"
    return [
        f"network: {operators}{pixels}",
        *(f"input {port.name}: {port.dtype} {shaped(port.full_shape)}" for port in graph.inputs),
        *(
            f"output {output.name}: {output.dtype} {'of unknown shape' if shape is None else shaped(shape)}"
            for output, shape in zip(graph.outputs, _output_shapes(content, graph), strict=True)
        ),
    ]


def _output_shapes(content: DcfFile, graph: Graph) -> list[tuple[int | None, ...] | None]:
    """Return the shapes of the outputs with None for the batch; each is None if the graph is not valid."""
    try:
        shapes = graph.shapes({name: content.info(name).shape for name in content.names})
    except FormatError:
        return [None] * len(graph.outputs)
    return [with_batch(shapes[output.value], output.batch_axis) for output in graph.outputs]


def _pixels(preprocessing: Preprocessing) -> str:
    """Return the formula that makes the network's input from a pixel of 0 to 255."""
    if preprocessing == Preprocessing((0.0,), (1.0,)):
        return "pixel / 255"
    return f"(pixel / 255 - {_one(preprocessing.mean)}) / {_one(preprocessing.std)}"


def _one(values: tuple[float, ...]) -> str:
    return f"{values[0]:.6g}" if len(values) == 1 else str([float(f"{v:.6g}") for v in values])


def _memory(content: DcfFile) -> list[tuple[str, int]]:
    """Predict the memory that the model and a run take, without loading anything."""
    infos = [content.info(name) for name in content.names]
    rows = [
        ("all tensors in packed form: sparse rows, codes, codebooks", content.decoded_bytes),
        ("the largest tensor in packed form", max((info.decoded_bytes for info in infos), default=0)),
        ("all tensors in dense form, as float32", 4 * sum(info.size for info in infos)),
    ]
    if content.graph is not None:
        from dcformat_runtime import predict_memory

        predicted = predict_memory(content)
        rows += [(f"run: {row.what}", row.bytes) for row in predicted]
        rows.append(("run: together", sum(row.bytes for row in predicted)))
    return rows


def _memory_table(content: DcfFile) -> TextTable:
    rows = [(what, f"{size:,}") for what, size in _memory(content)]
    return TextTable("maximum memory", ("what", "bytes"), rows)


def _document(name: str, content: DcfFile) -> dict[str, Any]:
    graph = content.graph
    return {
        "file": name,
        "version": list(content.version),
        "digest": content.digest.hex(),
        **summary.as_json(summary.summarize(content)),
        "network": None if graph is None else _graph_document(content, graph),
        "labels": list(content.labels),
        "metadata": dict(content.metadata),
        "self_test": None if content.self_test is None else {
            "seed": content.self_test.seed, "samples": content.self_test.samples,
        },
        "delta": _delta_document(content),
        "extensions": [{"kind": e.kind, "bytes": len(e.payload)} for e in content.extensions],
        "stages": [{"stage": stage, "metric": metric} for stage, metric in recorded_stages(content.metadata)],
    }  # fmt: skip


def _memory_document(content: DcfFile, wanted: bool) -> dict[str, Any]:
    return {"memory": [{"what": what, "bytes": size} for what, size in _memory(content)]} if wanted else {}


def _delta_document(content: DcfFile) -> dict[str, Any] | None:
    if content.delta is None:
        return None
    from dcformat_cli.pack import delta_packing

    return delta_packing.as_json(content.delta)


def _operand(operand: Operand) -> object:
    """Return an operand as JSON: the number of a value, the name of a tensor, or a constant, which may be infinite."""
    if isinstance(operand, float):
        return {"constant": operand if isfinite(operand) else str(operand)}
    return operand


def _shape(shape: tuple[int | None, ...]) -> list[int | str]:
    return ["batch" if size is None else size for size in shape]


def _graph_document(content: DcfFile, graph: Graph) -> dict[str, Any]:
    p = graph.preprocessing
    shapes = _output_shapes(content, graph)
    return {
        "input_shape": list(graph.input_shape) if len(graph.inputs) == 1 else None,
        "inputs": [
            {"name": port.name, "shape": _shape(port.full_shape), "dtype": port.dtype, "batch_axis": port.batch_axis}
            for port in graph.inputs
        ],
        "outputs": [
            {
                "name": output.name,
                "value": output.value,
                "shape": None if shape is None else _shape(shape),
                "dtype": output.dtype,
                "batch_axis": output.batch_axis,
            }
            for output, shape in zip(graph.outputs, shapes, strict=True)
        ],
        "preprocessing": None if p is None else {"mean": list(p.mean), "std": list(p.std)},
        "nodes": [
            {"kind": node.kind, "inputs": list(map(_operand, node.inputs)), "tensors": list(node.tensors)}
            for node in graph.nodes
        ],
    }
