"""The reference decoder and the package read graphs alike, valid or not."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dcformat.cursor import Cursor
from dcformat.errors import FormatError
from dcformat.graph import Graph, Shape
from dcformat.graph_codec import read_graph, write_graph
from dcformat.model import Model, Tensor
from tests.format.graph_strategies import valid_graphs
from tests.spec.support import of_graph, reference_graph, reference_reader


def by_reference(raw: bytes, tensors: dict[str, Shape]) -> Any:
    """Return the reference decoder's result for a graph, or the code of its error."""
    entries = [
        reference_reader.Entry(name, 0, "float32", 4, shape, 1.0, 0, 0, 0, True) for name, shape in tensors.items()
    ]
    reader = reference_reader.Reader(raw)
    try:
        graph = reference_graph.read_graph(reader, entries)
        reader.end("graph")
    except reference_reader.DecodeError as error:
        return error.code
    return json.loads(json.dumps(graph))


def by_package(raw: bytes, tensors: dict[str, Shape]) -> Any:
    """Return the package's result for a graph, in the same form."""
    cursor = Cursor(raw)
    try:
        graph = read_graph(cursor, tensors)
        cursor.finish("graph")
        graph.shapes(tensors)
    except FormatError as error:
        return error.code
    assert write_graph(graph, list(tensors)) == raw
    empty = np.empty(0, np.float32)
    return of_graph(Model({name: Tensor(name, shape, "float32", empty) for name, shape in tensors.items()}, graph))


@given(valid_graphs())
@settings(max_examples=200)
def test_both_read_a_graph_alike(made: tuple[Graph, dict[str, Shape]]) -> None:
    graph, tensors = made
    raw = write_graph(graph, list(tensors))
    found = by_package(raw, tensors)
    assert not isinstance(found, str)
    assert by_reference(raw, tensors) == found


@given(valid_graphs(), st.data())
@settings(max_examples=400)
def test_both_take_or_refuse_altered_bytes(made: tuple[Graph, dict[str, Shape]], data: st.DataObject) -> None:
    """A graph with several faults may be refused for any of them."""
    graph, tensors = made
    raw = bytearray(write_graph(graph, list(tensors)))
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] = data.draw(st.sampled_from([raw[at] ^ 1, (raw[at] + 1) % 256, (raw[at] - 1) % 256, raw[at] ^ 128, 0]))
    ours, theirs = by_package(bytes(raw), tensors), by_reference(bytes(raw), tensors)
    assert ours == theirs or (isinstance(ours, str) and isinstance(theirs, str))
