"""Small ONNX models, and the check that every import makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from dcformat_interop import OnnxImport, import_onnx
from dcformat_runtime import Session
from onnx import TensorProto, helper, numpy_helper

from dcformat.graph import Graph

node = helper.make_node
FLOAT, INT64, INT8, UINT8, BOOL = (
    TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT8, TensorProto.UINT8, TensorProto.BOOL,
)  # fmt: skip
Dims = list[Any] | None
Ports = Mapping[str, Dims | tuple[int, Dims]]


def ports(described: Ports) -> list[Any]:
    """Make inputs or outputs: a shape is float32, and a pair is a type and a shape."""
    out = []
    for name, given in described.items():
        kind, shape = given if isinstance(given, tuple) else (FLOAT, given)
        out.append(helper.make_tensor_value_info(name, kind, shape))
    return out


def proto(
    nodes: Sequence[Any], inputs: Ports, outputs: Ports, tensors: Mapping[str, npt.ArrayLike] | None = None,
    opset: int = 18, **others: Any,
) -> Any:  # fmt: skip
    """Make a model; float64 tensors become float32."""
    stored = [
        numpy_helper.from_array(array.astype(np.float32) if array.dtype == np.float64 else array, name)
        for name, array in ((name, np.asarray(values)) for name, values in (tensors or {}).items())
    ]
    graph = helper.make_graph(list(nodes), "test", ports(inputs), ports(outputs), stored)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, **others)


def model(*args: Any, **options: Any) -> bytes:
    """Make a model with the parameters of `proto`, and return its bytes."""
    made: bytes = proto(*args, **options).SerializeToString()
    return made


def checked(data: bytes, **options: Any) -> OnnxImport:
    """Import a model and check it on random inputs."""
    imported = import_onnx(data, **options)
    imported.check(Session.from_model(imported.model, backend="numpy"))
    return imported


def graph_of(imported: OnnxImport) -> Graph:
    """Return the graph of an imported network."""
    assert imported.model.graph is not None
    return imported.model.graph


def nodes_of(imported: OnnxImport) -> list[Any]:
    """Return the operators of an imported network."""
    return list(graph_of(imported).nodes)


def kinds(imported: OnnxImport) -> list[str]:
    """Return the kinds of the operators of an imported network."""
    return [made.kind for made in nodes_of(imported)]


def random(*shape: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Return normal numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
