"""`dcformat diff`: compare two files."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from dcformat.floats import as_numbers, bit_patterns
from dcformat.limits import require_work
from dcformat.wording import counted
from dcformat_cli.failures import misuse
from dcformat_cli.input_files import opened
from dcformat_cli.shared_options import FileName, as_json, max_memory, max_work
from dcformat_cli.terminal import TextTable, emit_json, note, say

if TYPE_CHECKING:
    from dcformat import DcfFile
    from dcformat.graph import Graph
    from dcformat.model import Tensor

#: Random inputs that both networks get.
_INPUTS = 4


@click.command("diff")
@click.argument("first", type=FileName(), metavar="A")
@click.argument("second", type=FileName(), metavar="B")
@max_memory()
@max_work()
@as_json()
def diff_command(first: str, second: str, max_memory: int | None, max_work: int | None, as_json: bool) -> None:
    """Compare two files: the tensors that were added, removed or changed, the network, and its outputs.

    Values are compared bit by bit. If both files hold networks with the same inputs and outputs, both run on the same
    random inputs. The exit code is 0 whether the files differ or not.
    """
    if first == second == "-":
        raise misuse("expected two files, found stdin twice")
    with opened(first, max_memory, max_work) as a, opened(second, max_memory, max_work) as b:
        require_work("decoding both files", a.work() + b.work(), max_work)
        document = _compared(a, b)
        document["outputs"] = _outputs(a, b, max_memory, max_work) if document["network"] != "none" else None
    document = {"files": [first, second], **document}
    if as_json:
        emit_json(document)
    else:
        _say(document)


def _compared(a: DcfFile, b: DcfFile) -> dict[str, Any]:
    names, others = set(a.names), set(b.names)
    common = [name for name in a.names if name in others]
    tensors = [_tensor(a, b, name) for name in common]
    return {
        "bytes": [a.size, b.size],
        "identical": a.digest == b.digest,
        "added": [name for name in b.names if name not in names],
        "removed": [name for name in a.names if name not in others],
        "changed": [tensor for tensor in tensors if tensor is not None],
        "unchanged": sum(tensor is None for tensor in tensors),
        "network": _network(a, b),
        "labels": a.labels != b.labels,
        "metadata": dict(a.metadata) != dict(b.metadata),
    }


def _tensor(a: DcfFile, b: DcfFile, name: str) -> dict[str, Any] | None:
    """Return how a tensor differs, or None if it is the same."""
    first, second = a.tensor(name), b.tensor(name)
    out: dict[str, Any] = {"name": name, "shape": None, "dtype": None, "elements": None, "mask": None, "largest": None}
    if first.shape != second.shape or first.dtype != second.dtype or first.scale != second.scale:
        out["shape"] = [list(first.shape), list(second.shape)]
        out["dtype"] = [first.dtype, second.dtype]
        return out | _codebooks(first, second)
    elements, mask, largest = 0, 0, 0.0
    for one, other in zip(first.pieces(), second.pieces(), strict=True):
        apart = bit_patterns(one) != bit_patterns(other)
        if not apart.any():
            continue
        elements += int(np.count_nonzero(apart))
        x, y = one[apart], other[apart]
        mask += int(np.count_nonzero((bit_patterns(x) == 0) != (bit_patterns(y) == 0)))
        largest = max(largest, _largest(x, y, first.dtype, first.scale))
    if not elements:
        return None
    return out | {"elements": elements, "mask": mask, "largest": largest} | _codebooks(first, second)


def _codebooks(first: Tensor, second: Tensor) -> dict[str, list[int]]:
    return {"codebook": [0 if tensor.codebook is None else len(tensor.codebook) for tensor in (first, second)]}


def _largest(x: np.ndarray, y: np.ndarray, dtype: str, scale: float) -> float:
    """Return the largest finite difference of two arrays of numbers; 0 for dtypes that NumPy does not compute with."""
    if dtype.startswith("float8") or dtype == "bool":
        return 0.0
    kind = np.complex128 if dtype.startswith("complex") else np.float64
    with np.errstate(all="ignore"):
        apart = np.abs(as_numbers(x, dtype).astype(kind) - as_numbers(y, dtype).astype(kind)) * scale
    return float(apart[np.isfinite(apart)].max(initial=0))


def _network(a: DcfFile, b: DcfFile) -> str:
    """Return ``same``, ``changed``, ``added``, ``removed`` or ``none``."""
    if a.graph is None or b.graph is None:
        return "none" if a.graph is b.graph else "added" if a.graph is None else "removed"
    return "same" if a.graph == b.graph else "changed"


def _outputs(a: DcfFile, b: DcfFile, max_memory: int | None, max_work: int | None) -> list[dict[str, Any]] | None:
    """Return the largest difference of each output for random inputs; None if the networks take different ones."""
    from dcformat_runtime import InputError, Session

    if a.graph is None or b.graph is None or a.graph.inputs != b.graph.inputs:
        return None
    inputs, results = _random_inputs(a.graph), []
    for content in (a, b):
        session = Session.from_model(content.model(), max_memory=max_memory, max_work=max_work)
        try:
            results.append(session(inputs))
        except InputError as error:
            note(f"outputs not compared, as a network does not take random inputs ({error})")
            return None
    found, others = results
    out: list[dict[str, Any]] = []
    for name in found:
        if name in others and others[name].shape == found[name].shape:
            x, y = (np.asarray(array, np.float64) for array in (found[name], others[name]))
            scale = float(np.abs(x[np.isfinite(x)]).max(initial=0))
            out.append({"name": name, "difference": _largest(x, y, "float64", 1.0), "largest": scale})
    return out


def _random_inputs(graph: Graph) -> Mapping[str, Any]:
    random, out = np.random.default_rng(0), {}
    for port in graph.inputs:
        shape = [_INPUTS if size is None else size for size in port.full_shape]
        if np.dtype(port.dtype).kind == "f":
            out[port.name] = np.asarray(random.standard_normal(shape)).astype(port.dtype)
        else:
            out[port.name] = np.asarray(random.integers(0, 2, shape)).astype(port.dtype)
    return out


def _say(document: Mapping[str, Any]) -> None:
    (first, second), (before, after) = document["files"], document["bytes"]
    say(f"{first}: {before:,} bytes; {second}: {after:,} bytes ({after - before:+,})")
    if document["identical"]:
        say("the contents are identical")
        return
    for kind in ("added", "removed"):
        if document[kind]:
            say(f"{kind}: {', '.join(document[kind])}")
    if document["changed"]:
        rows = [_row(tensor) for tensor in document["changed"]]
        TextTable("changed:", ("tensor", "elements", "of the mask", "largest \nchange", "codebook"), rows).show()
    say(f"unchanged: {counted(document['unchanged'], 'tensor')}")
    others = [name for name in ("labels", "metadata") if document[name]]
    say(f"network: {document['network']}{''.join(f'; {name} changed' for name in others)}")
    for output in document["outputs"] or []:
        figures = f"largest difference {output['difference']:.3g}, largest output {output['largest']:.3g}"
        say(f"output {output['name']}: {figures}")


def _row(tensor: Mapping[str, Any]) -> tuple[str, ...]:
    codebook = " -> ".join(map(str, dict.fromkeys(tensor["codebook"])))
    if tensor["shape"] is not None:
        pairs = zip_longest(tensor["dtype"], tensor["shape"])
        return (tensor["name"], " -> ".join(f"{d} {'x'.join(map(str, s))}" for d, s in pairs), "-", "-", codebook)
    return (tensor["name"], f"{tensor['elements']:,}", f"{tensor['mask']:,}", f"{tensor['largest']:.3g}", codebook)
