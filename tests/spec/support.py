"""Shared parts of the tests of the specification: the reference decoder, and both decoders' results in one form."""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from pathlib import Path
from typing import Any

import dcformat
from dcformat.graph import Operand
from dcformat.graph_attributes import ATTRIBUTES, OPERATORS
from dcformat.graph_codec import WEIGHTS
from dcformat.model import Model, SelfTest, Tensor
from dcformat.selftest import pixels

ROOT = Path(__file__).parents[2]
SPEC = ROOT / "spec"
VECTORS = SPEC / "vectors" / "v1"

if str(SPEC) not in sys.path:
    # The reference decoder is a program of a few files in one folder, not a package.
    sys.path.append(str(SPEC))

import mutation_test as mutation_test  # noqa: E402
import mutations as mutations  # noqa: E402
import reference_coders as reference_coders  # noqa: E402
import reference_decoder as reference_decoder  # noqa: E402
import reference_graph as reference_graph  # noqa: E402
import reference_mixing as reference_mixing  # noqa: E402
import reference_payloads as reference_payloads  # noqa: E402
import reference_reader as reference_reader  # noqa: E402
import run_arrays as run_arrays  # noqa: E402
import run_graph as run_graph  # noqa: E402
import trace_coder_3 as trace_coder_3  # noqa: E402


def manifest() -> dict[str, Any]:
    """Return the results that the vectors must decode to."""
    found: dict[str, Any] = json.loads((VECTORS / "manifest.json").read_text(encoding="utf-8"))
    return found


def reference(data: bytes) -> dict[str, Any]:
    """Return the reference decoder's result for a file, in the form of JSON."""
    summary: dict[str, Any] = json.loads(json.dumps(reference_decoder.summary(reference_decoder.decode(data))))
    return summary


def package(file: dcformat.DcfFile) -> dict[str, Any]:
    """Return the package's result for an open file, in the same form."""
    return {"version": list(file.version), **of_model(file.model()), "digest": file.digest.hex()}


def of_model(model: Model) -> dict[str, Any]:
    """Return a model in the form of the reference decoder's summary."""
    return {
        "tensors": [of_tensor(tensor) for tensor in model.tensors.values()],
        "graph": None if model.graph is None else of_graph(model),
        "labels": list(model.labels),
        "metadata": dict(model.metadata),
        "self_test": None if model.self_test is None else of_self_test(model.self_test),
        "extensions": [[128 | extension.kind, extension.payload.hex()] for extension in model.extensions],
    }


def of_self_test(test: SelfTest) -> list[Any]:
    """Return a self-test in the form of the summary: its numbers and its first eight pixels."""
    return [test.seed, test.samples, test.digest.hex(), pixels(test.seed, 1, (8,)).tobytes().hex()]


def of_tensor(tensor: Tensor) -> dict[str, Any]:
    """Return a tensor's shape, dtype, scale, and the SHA-256 of its dense bytes (or of what is stored)."""
    found = {"name": tensor.name, "shape": list(tensor.shape), "dtype": tensor.dtype, "scale": float(tensor.scale)}
    if tensor.nbytes <= reference_reader.MAX_DENSE_BYTES:
        return found | {"sha256": hashlib.sha256(tensor.to_dense().tobytes()).hexdigest()}
    raw = b""
    if tensor.indptr is not None and tensor.indices is not None:
        rows = [row for row in range(tensor.rows) for _ in range(int(tensor.indptr[row + 1] - tensor.indptr[row]))]
        pairs = zip(rows, tensor.indices.tolist(), strict=True)
        raw = b"".join(struct.pack("<Q", row * tensor.columns + column) for row, column in pairs)
    return found | {"stored_sha256": hashlib.sha256(raw + tensor.values().tobytes()).hexdigest()}


def of_graph(model: Model) -> dict[str, Any]:
    """Return a graph in the form of the summary."""
    graph = model.graph
    assert graph is not None
    operators: list[dict[str, Any]] = []
    for node in graph.nodes:
        kind = next(kind for kind in OPERATORS.values() if type(node) is kind)
        found: dict[str, Any] = {"operator": kind.__name__, "operands": [of_operand(o) for o in node.inputs]}
        for field in (*WEIGHTS.get(kind, ()), "bias"):
            if (name := getattr(node, field, None)) is not None:
                found[field] = name
        attributes = {field: of_attribute(getattr(node, field)) for field in ATTRIBUTES.get(kind, ())}
        operators.append(found | ({"attributes": attributes} if attributes else {}))
    rule = graph.preprocessing
    return {
        "inputs": [
            {"name": p.name, "dtype": p.dtype, "batch_axis": p.batch_axis, "shape": list(p.shape)} for p in graph.inputs
        ],
        "outputs": [
            {"name": o.name, "dtype": o.dtype, "batch_axis": o.batch_axis, "value": o.value} for o in graph.outputs
        ],
        "mean": list(rule.mean) if rule else [],
        "std": list(rule.std) if rule else [],
        "operators": operators,
        "shapes": [list(shape) for shape in graph.shapes({t.name: t.shape for t in model.tensors.values()})],
    }


def of_operand(operand: Operand) -> Any:
    """Return an operand in the form of the summary."""
    if isinstance(operand, str):
        return {"tensor": operand}
    return {"constant": of_attribute(operand)} if isinstance(operand, float) else operand


def of_attribute(value: Any) -> Any:
    """Return an attribute in the form of the summary: real numbers as the bits of binary32."""
    if isinstance(value, tuple):
        return [of_attribute(item) for item in value]
    return struct.pack(">f", value).hex() if isinstance(value, float) else value
