"""The order in which the nodes of a graph can be computed."""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import heappop, heappush
from typing import Any

from dcformat_interop.refusals import UnfitError

#: The field in which `torch.onnx.export` writes the paths of a node's modules, from the outermost on.
_MODULE_PATHS = "pkg.torch.onnx.name_scopes"


def what(node: Any) -> str:
    """Return the name of a node in messages: its own, or that of its first result if it has none."""
    return f"node {label(node)!r} ({node.op_type})"


def label(node: Any) -> str:
    """Return the path of the module from which PyTorch made a node, or the node's name, or that of its first result."""
    for entry in node.metadata_props:
        if entry.key == _MODULE_PATHS:
            *paths, name = re.findall(r"'([^']*)'", entry.value) or [""]  # the last one is PyTorch's name for the node
            if found := (paths and paths[-1]) or name:
                return str(found)
    return str(node.name or (node.output[0] if node.output else ""))


def own_names(names: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the names of a graph itself, without those around it."""
    return names.maps[0] if isinstance(names, ChainMap) else names


def in_order(path: str, nodes: Sequence[Any], names: Mapping[str, Any]) -> Iterator[Any]:
    """Yield nodes in their order, but each after those whose results it reads.

    Parameters
    ----------
    path : str
        The model, for errors.
    nodes : sequence of NodeProto
    names : mapping of str to object
        The names that are known, to which the caller adds the results of each node.

    Raises
    ------
    UnfitError
        No node makes a name that one reads, two nodes make the same name, or there is a cycle.
    """
    makers: dict[str, int] = {}
    known = set(own_names(names))
    for number, node in enumerate(nodes):
        for name in filter(None, node.output):
            if name in makers or name in known:
                raise UnfitError(path, "results with different names", f"{name!r} twice", what(node))
            makers[name] = number
    needed = [{makers[name] for name in _read(node) if name in makers} for node in nodes]
    readers: list[list[int]] = [[] for _ in nodes]
    for number, sources in enumerate(needed):
        for source in sources:
            readers[source].append(number)
    ready = [number for number, sources in enumerate(needed) if not sources]  # ascending, which is a heap
    count = 0
    while ready:
        number = heappop(ready)
        node = nodes[number]
        for name in filter(None, node.input):
            if name not in names:
                raise UnfitError(path, f"an initializer or a result called {name!r}", "none", what(node))
        yield node
        count += 1
        for reader in readers[number]:
            needed[reader].discard(number)
            if not needed[reader]:
                heappush(ready, reader)
    if count < len(nodes):
        stuck = next(node for node, sources in zip(nodes, needed, strict=True) if sources)
        raise UnfitError(path, "a graph without cycles", "a node that needs its own result", what(stuck))


def _read(node: Any) -> Iterable[str]:
    """Yield the names that a node reads, and those that its subgraphs may read."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        graphs = [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
        for graph in graphs:
            made = {name for inner in graph.node for name in inner.output} | {value.name for value in graph.input}
            for inner in graph.node:
                yield from (name for name in _read(inner) if name not in made)
            yield from (value.name for value in graph.output if value.name not in made)
