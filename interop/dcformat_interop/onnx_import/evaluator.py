"""Partial evaluation of an ONNX graph: nodes that depend on no input are computed, the others go to a graph builder."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.errors import FormatError
from dcformat_interop.graph_builder import GraphBuilder, Value
from dcformat_interop.lowering.unsupported import Unsupported, UnsupportedOperators
from dcformat_interop.onnx_import import control_flow
from dcformat_interop.onnx_import.constant_folding import can_fold, fold
from dcformat_interop.onnx_import.functions import (
    attribute_value,
    bound_attributes,
    check_attributes,
    check_inputs,
    default_attributes,
    resolved,
    schema_function,
)
from dcformat_interop.onnx_import.items import LOWERINGS, OnnxCall, OnnxItem, constant
from dcformat_interop.onnx_import.loading import TensorLoader, opset_versions
from dcformat_interop.onnx_import.ordering import in_order, label, own_names, what
from dcformat_interop.onnx_import.source_model import OnnxOrigin
from dcformat_interop.refusals import UnfitError
from dcformat_interop.tensors import Budget, is_single

Array = npt.NDArray[Any]
#: The names of a graph and what they stand for; None for the result of an operator that cannot be imported.
Names = MutableMapping[str, OnnxItem | None]

#: Maximum depth of functions and subgraphs, and maximum number of nodes with all their calls and iterations.
_MAX_DEPTH, _MAX_STEPS = 32, 1 << 16

_CONTROL_FLOW = {"If": control_flow.choose, "Loop": control_flow.loop, "Scan": control_flow.scan}

#: The nearest way out for operators that cannot be imported.
_WAYS = {
    **dict.fromkeys(("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli",
                     "Multinomial"), "give the random numbers as an input"),
    **dict.fromkeys(("StringNormalizer", "StringConcat", "StringSplit", "TfIdfVectorizer", "RegexFullMatch",
                     "LabelEncoder", "ImageDecoder"), "prepare the input outside the network"),
    **dict.fromkeys(("If", "Loop", "Scan"), "fix the inputs that decide with --set NAME=VALUE or --dim NAME=SIZE"),
}  # fmt: skip

#: The exceptions that reading a node may raise if its inputs or attributes do not fit.
_MISFITS = (FormatError, ValueError, TypeError, IndexError, KeyError, OverflowError, ZeroDivisionError)


class Scope(NamedTuple):
    """The meaning of the names in a graph or function.

    `versions` has the operator set of each domain, and `attributes` the values of a function's attributes.
    """

    names: Names
    versions: Mapping[str, int]
    attributes: Mapping[str, Any]


class OnnxEvaluator:
    """Lowers the nodes of a graph, its functions, and its subgraphs.

    Parameters
    ----------
    origin : OnnxOrigin
    model : ModelProto
    builder : GraphBuilder
    loader : TensorLoader
    budget : Budget
        Counts the bytes of folded constants.
    single : bool
        Whether to round float64 constants to float32.
    """

    def __init__(
        self, origin: OnnxOrigin, model: Any, builder: GraphBuilder, loader: TensorLoader, budget: Budget, single: bool
    ) -> None:
        self._single = single
        self._path, self._builder, self._loader, self._budget = origin.path, builder, loader, budget
        self._functions = {(_domain(f.domain), f.name): f for f in model.functions}
        self._depth = self._steps = 0
        self.unsupported = UnsupportedOperators(origin.path, _WAYS, origin.otherwise)

    def graph(self, graph: Any, scope: Scope) -> None:
        """Lower all nodes of a graph; afterwards `scope.names` has the meaning of each name."""
        for tensor in graph.initializer:
            self._store(tensor.name, self._loader.array(tensor), scope.names)
        for sparse in graph.sparse_initializer:
            self._store(sparse.values.name, self._loader.sparse(sparse), scope.names)
        self._nodes(graph.node, scope)

    def _store(self, name: str, array: Array, names: Names) -> None:
        if name in own_names(names):
            raise UnfitError(
                self._path, "tensors and inputs with different names", "this one twice", f"tensor {name!r}"
            )
        names[name] = constant(array, name)

    def _nodes(self, nodes: Sequence[Any], scope: Scope) -> None:
        if self._steps + len(nodes) > _MAX_STEPS:
            raise UnfitError(self._path, f"at most {_MAX_STEPS:,} nodes with all calls and iterations", "more")
        for node in in_order(self._path, nodes, scope.names):
            results = self._node(resolved(node, scope.attributes), scope)
            for number, name in enumerate(node.output):
                if name:
                    scope.names[name] = results[number] if number < len(results) else None

    def _node(self, node: Any, scope: Scope) -> Sequence[OnnxItem | None]:
        self._steps += 1
        inputs = [scope.names[name] if name else None for name in node.input]
        try:
            attributes = self._attributes(node, inputs, scope.versions)
            if any(name and scope.names[name] is None for name in node.input):
                self._note_if_unknown(node, scope.versions)
                return []
            return self._results(node, inputs, attributes, scope)
        except Unsupported as reason:
            self.unsupported.add(node.op_type, label(node), str(reason))
            return []
        except UnfitError:
            raise
        except _MISFITS as error:
            raise _unfit(self._path, what(node), error) from error

    def _results(
        self, node: Any, inputs: Sequence[OnnxItem | None], attributes: Mapping[str, Any], scope: Scope
    ) -> Sequence[OnnxItem | None]:
        key = (_domain(node.domain), node.op_type)
        version = scope.versions.get(key[0], 1)
        if key in self._functions:
            return self._function(self._functions[key], inputs, attributes)
        if key == ("", "Constant"):
            return [constant(self._constant(node, attributes), node.output[0])]
        if key[0] == "" and key[1] in _CONTROL_FLOW:
            run = _CONTROL_FLOW[key[1]]
            return run(self._builder, lambda graph, fed: self._subgraph(graph, fed, scope), inputs, attributes)
        if can_fold(node) and all(item is None or _is_numeric(item.array) for item in inputs):
            return self._folded(node, inputs, attributes, version)
        lowering = LOWERINGS.get(key)
        if lowering is None:
            return self._expanded(node, inputs, attributes, version)
        self._require_single(inputs)
        call = OnnxCall(
            node.op_type, label(node), version, inputs, attributes, list(node.output), self._builder, self._budget
        )
        made = lowering(call)
        many = list(made) if isinstance(made, list | tuple) and not isinstance(made, Value) else [made]
        default = next((item.dtype for item in inputs if item is not None), np.dtype(np.float32))
        return [_item(result, default) for result in many]

    def _require_single(self, inputs: Sequence[OnnxItem | None]) -> None:
        """Raise `ValueError` if constants are float64 that float32, with which networks compute, does not hold."""
        for number, item in enumerate(inputs):
            double = item is not None and item.array is not None and item.dtype == np.float64
            if double and not self._single and not is_single(item.array):  # type: ignore[union-attr, arg-type]
                raise ValueError(
                    f"input {number}: expected float64 numbers that float32 holds exactly, found others "
                    "(--float32, or single=True, rounds them)"
                )

    def _folded(
        self, node: Any, inputs: Sequence[OnnxItem | None], attributes: Mapping[str, Any], version: int
    ) -> Sequence[OnnxItem | None]:
        """Compute an operator on constants; the results keep the name of the largest."""
        arrays = [None if item is None else item.array for item in inputs]
        results = fold(node, arrays, attributes, version, self._budget)
        source = max((item for item in inputs if item is not None and item.name), key=_size, default=None)
        name = source.name if source else node.output[0]
        return [None if array is None else constant(array, name) for array in results]

    def _expanded(
        self, node: Any, inputs: Sequence[OnnxItem | None], attributes: Mapping[str, Any], version: int
    ) -> Sequence[OnnxItem | None]:
        """Lower an operator that ONNX defines by others."""
        function = schema_function(node, inputs, version)
        if function is None:
            raise Unsupported("")
        return self._function(function, inputs, {**default_attributes(node, version), **attributes})

    def _function(
        self, function: Any, inputs: Sequence[OnnxItem | None], attributes: Mapping[str, Any]
    ) -> list[OnnxItem | None]:
        if len(inputs) > len(function.input):
            raise ValueError(f"inputs of function {function.name}: expected {len(function.input)}, found {len(inputs)}")
        padded = [*inputs, *[None] * (len(function.input) - len(inputs))]
        # An input that is left out is a name without a meaning: nodes see it as left out too.
        names: Names = {name: item for name, item in zip(function.input, padded, strict=True) if item is not None}
        absent = {name for name, item in zip(function.input, padded, strict=True) if item is None}
        with self._deeper():
            nodes = [_without(node, absent) for node in function.node]
            self._nodes(nodes, Scope(names, opset_versions(function), bound_attributes(function, attributes)))
        return [names.get(name) for name in function.output]

    def _subgraph(self, graph: Any, fed: Mapping[str, OnnxItem | None], scope: Scope) -> list[OnnxItem | None]:
        inner: Names = ChainMap(dict(fed), scope.names)
        with self._deeper():
            self.graph(graph, scope._replace(names=inner))
        return [inner[value.name] for value in graph.output]

    @contextmanager
    def _deeper(self) -> Iterator[None]:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise UnfitError(self._path, f"at most {_MAX_DEPTH} functions or subgraphs within each other", "more")
        yield
        self._depth -= 1

    def _constant(self, node: Any, attributes: Mapping[str, Any]) -> Array:
        (name, value), *more = attributes.items() or [("", None)]
        if more or value is None:
            raise ValueError(f"attributes: expected one value, found {list(attributes)}")
        if name == "value":
            return self._loader.array(value, node.output[0])
        if name == "sparse_value":
            return self._loader.sparse(value)
        dtypes = {"value_float": "f4", "value_floats": "f4", "value_int": "i8", "value_ints": "i8"}
        return np.asarray(value, dtypes.get(name, object))

    def _attributes(self, node: Any, inputs: Sequence[OnnxItem | None], versions: Mapping[str, int]) -> dict[str, Any]:
        """Return a node's attributes, and refuse those that its operator does not have or take."""
        schema = self._schema(node, versions)
        if schema is not None:
            check_attributes(self._path, node, schema.attributes)
            check_inputs(node, inputs, schema)
        return {attribute.name: attribute_value(attribute) for attribute in node.attribute}

    def _schema(self, node: Any, versions: Mapping[str, int]) -> Any:
        """Return ONNX's description of an operator, or None if only its author knows it."""
        import onnx

        domain = _domain(node.domain)
        version = versions.get(domain)
        if (domain, node.op_type) in self._functions:
            return None
        if version is None:
            raise UnfitError(self._path, f"an operator set for the domain {domain!r}", "none", what(node))
        if onnx.defs.has(node.op_type, version, domain):
            return onnx.defs.get_schema(node.op_type, version, domain)
        # onnxruntime's own operators may be in ONNX's domain, but not those of other operator sets.
        newest = onnx.defs.onnx_opset_version()
        if domain == "" and onnx.defs.has(node.op_type, newest, ""):
            raise UnfitError(self._path, f"an operator of operator set {version}", node.op_type, what(node))
        return None

    def _note_if_unknown(self, node: Any, versions: Mapping[str, int]) -> None:
        """Name an operator that follows one that cannot be imported, if it cannot be imported either."""
        key = (_domain(node.domain), node.op_type)
        known = key in LOWERINGS or key in self._functions or key[1] in (*_CONTROL_FLOW, "Constant")
        if not known and not can_fold(node) and schema_function(node, None, versions.get(key[0], 1)) is None:
            raise Unsupported("")


def _unfit(path: str, node: str, error: Exception) -> UnfitError:
    """Return the error for a node whose inputs or attributes do not fit."""
    if isinstance(error, FormatError):
        return UnfitError(path, error.expected, error.got, f"{node}: {error.field}")
    reason = str(error).partition("\n")[0] or type(error).__name__
    return UnfitError(path, "inputs and attributes that fit", reason, node)


def _item(result: Any, dtype: np.dtype[Any]) -> OnnxItem | None:
    if result is None or isinstance(result, OnnxItem):
        return result
    return OnnxItem(dtype, result) if isinstance(result, Value) else constant(np.asarray(result).astype(dtype))


def _is_numeric(array: Array | None) -> bool:
    """Return whether an item is a constant array of numbers rather than a value or text."""
    return array is not None and array.dtype != object


def _size(item: OnnxItem) -> int:
    return 0 if item.array is None else item.array.size


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def _without(node: Any, absent: set[str]) -> Any:
    """Return a function's node without the inputs that its caller left out."""
    if not absent.intersection(node.input):
        return node
    copy = type(node)()
    copy.CopyFrom(node)
    copy.input[:] = ["" if name in absent else name for name in node.input]
    return copy
