"""Operators that are defined by others: functions of a model, and those with which ONNX defines its own operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dcformat_interop.onnx_import.items import OnnxItem
from dcformat_interop.onnx_import.ordering import what
from dcformat_interop.refusals import UnfitError


def schema_function(node: Any, inputs: Sequence[OnnxItem | None] | None, version: int) -> Any:
    """Return the function that defines an operator, for inputs of given shapes, or None if it is a primitive.

    Without `inputs`, the result only shows whether there is one.
    """
    import onnx

    domain = "" if node.domain == "ai.onnx" else node.domain
    if not onnx.defs.has(node.op_type, version, domain):
        return None
    schema = onnx.defs.get_schema(node.op_type, version, domain)
    if schema.has_function:
        return schema.function_body
    if not schema.has_context_dependent_function:
        return None
    if inputs is None:
        return onnx.FunctionProto()
    types = [b"" if item is None else _type(item).SerializeToString() for item in inputs]
    newest = max((v for v in schema.context_dependent_function_opset_versions if v <= version), default=version)
    made = schema.get_context_dependent_function_with_opset_version(newest, node.SerializeToString(), types)
    return onnx.FunctionProto.FromString(made) if made else None


def _type(item: OnnxItem) -> Any:
    import onnx

    return onnx.helper.make_tensor_type_proto(onnx.helper.np_dtype_to_tensor_dtype(item.dtype), item.shape)


def default_attributes(node: Any, version: int) -> dict[str, Any]:
    """Return the defaults of the attributes of an operator of ONNX."""
    import onnx

    schema = onnx.defs.get_schema(node.op_type, version, "" if node.domain == "ai.onnx" else node.domain)
    defaults = {name: attribute.default_value for name, attribute in schema.attributes.items()}
    return {name: attribute_value(default) for name, default in defaults.items() if default.type}


def attribute_value(attribute: Any) -> Any:
    """Return the value of an AttributeProto, text as `str`."""
    import onnx

    value = onnx.helper.get_attribute_value(attribute)
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def check_inputs(node: Any, inputs: Sequence[OnnxItem | None], schema: Any) -> None:
    """Raise `ValueError` unless an operator takes this number of inputs and results, and constants of these types."""
    import onnx

    for kind, count, min_count, max_count in (
        ("inputs", len(node.input), schema.min_input, schema.max_input),
        ("results", len(node.output), schema.min_output, schema.max_output),
    ):
        if not min_count <= count <= max_count:
            expected = min_count if min_count == max_count else f"{min_count} to {max_count}"
            raise ValueError(f"{kind}: expected {expected}, found {count}")
    allowed = {constraint.type_param_str: constraint.allowed_type_strs for constraint in schema.type_constraints}
    for number, item in enumerate(inputs):
        if item is None or item.array is None:
            continue
        formal = schema.inputs[min(number, len(schema.inputs) - 1)]
        types = allowed.get(formal.type_str, [formal.type_str])
        kind = onnx.TensorProto.DataType.Name(onnx.helper.np_dtype_to_tensor_dtype(item.dtype)).lower()
        if f"tensor({kind})" not in types:
            known = ", ".join(sorted(t[len("tensor(") : -1] for t in types if t.startswith("tensor(")))
            raise ValueError(f"input {formal.name}: expected {known}, found {kind}")


def check_attributes(path: str, node: Any, known: Mapping[str, Any]) -> None:
    """Raise unless the attributes of a node fit its operator: known, of their types, and complete."""
    import onnx

    given = {attribute.name: attribute for attribute in node.attribute}
    for name, attribute in given.items():
        if name not in known:
            expected = f"attributes of {node.op_type}: {', '.join(sorted(known)) or 'none'}"
            raise UnfitError(path, expected, repr(name), what(node))
        if attribute.type != int(known[name].type.value):
            found = onnx.AttributeProto.AttributeType.Name(attribute.type)
            raise UnfitError(path, f"the attribute {name} of type {known[name].type.name}", found, what(node))
    for name, attribute in known.items():
        if attribute.required and name not in given:
            raise UnfitError(path, f"the attribute {name}", "none", what(node))


def bound_attributes(function: Any, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a function's attributes in a call: those given, and the defaults of the others."""
    return {**{default.name: attribute_value(default) for default in function.attribute_proto}, **attributes}


def resolved(node: Any, bound: Mapping[str, Any]) -> Any:
    """Return a node of a function with the values of the attributes of the call instead of references to them."""
    import onnx

    if not any(attribute.ref_attr_name for attribute in node.attribute):
        return node
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    del copy.attribute[:]
    for attribute in node.attribute:
        if not attribute.ref_attr_name:
            copy.attribute.append(attribute)
        elif attribute.ref_attr_name in bound:
            copy.attribute.append(onnx.helper.make_attribute(attribute.name, bound[attribute.ref_attr_name]))
    return copy
