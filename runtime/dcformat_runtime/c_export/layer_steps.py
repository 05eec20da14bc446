"""Writes the C of layers that have weights."""

from __future__ import annotations

from math import prod

import numpy as np

from dcformat.graph import Conv, Linear
from dcformat_runtime.c_export.c_text import float_constant, pair, tensor_constant
from dcformat_runtime.c_export.step_context import BYTE, HALF, StepContext, fitting
from dcformat_runtime.c_export.steps import FusedStep
from dcformat_runtime.c_export.tensor_data import NO_TENSOR, Values


def write_linear(to: StepContext, step: FusedStep) -> None:
    """Write a linear layer."""
    node = step.node
    assert isinstance(node, Linear)
    out, columns = to.tensors[node.weight].shape
    name = f"linear_{step.number}"
    fields = [*_layer(to, step), ("rows", fitting(out, HALF, name)), ("columns", str(columns))]
    to.constant("linear_t", name, fields)
    lead = prod(to.shapes[step.sources[0]][:-1])
    function = "linear"
    if to.fixed is not None and not to.fixed.layers[step.number].scales:
        function = "linear_sums"
    to.written.need("linear", "linear_sums" if function == "linear_sums" else "linear_values")
    _call_each(to, function, name, step, lead, columns, out)


def write_conv(to: StepContext, step: FusedStep) -> None:
    """Write a convolution, and the pool that follows it."""
    node = step.node
    assert isinstance(node, Conv)
    out, channels, *kernel = to.tensors[node.weight].shape
    spatial = len(kernel)
    name = f"conv_{step.number}"
    source, target = to.shapes[step.sources[0]], to.shapes[step.target]
    pool = (1,) * spatial if step.pool is None else step.pool.kernel
    spans = [(k - 1) * d for k, d in zip(kernel, node.dilation, strict=True)]
    source_size, target_size = pair(source[-spatial:]), pair(target[-spatial:])
    alone = prod(kernel) == 1 and step.pool is None and not any((*node.padding, *node.padding_end))
    if alone and source_size == target_size:
        # Each position is computed alone, so all of them may form a single line.
        source_size = target_size = (1, prod(source_size))
    sizes = [channels, *source_size, out, out // node.groups, *target_size]
    names = ("channels", "height", "width", "out", "group", "rows", "columns")
    fields = [*_layer(to, step)]
    fields += [(key, fitting(size, HALF, name)) for key, size in zip(names, sizes, strict=True)]
    pairs = {
        "kernel": pair(kernel), "stride": pair(node.stride), "padding": pair(node.padding, 0),
        "dilation": pair(node.dilation), "pool": pair(pool),
    }  # fmt: skip
    for sizes_of_two in (*pairs.values(), spans):
        fitting(max(sizes_of_two), BYTE, name)
    fields += [(key, "{%d, %d}" % both) for key, both in pairs.items()]  # noqa: UP031 - braces
    to.constant("conv_t", name, fields)
    to.written.need("conv")
    to.written.padded |= any(node.padding) or any(node.padding_end)
    weight = _integers_or_floats(to, step)[0].numbers.reshape(out, -1)
    to.written.row_entries = max(to.written.row_entries, int(np.max(np.count_nonzero(weight, axis=1))), 1)
    lead = prod(source[: -spatial - 1])
    _call_each(to, "conv", name, step, lead, prod(source) // lead, prod(target) // lead)


def _layer(to: StepContext, step: FusedStep) -> list[tuple[str, str]]:
    """Return the fields that all layers begin with."""
    node = step.node
    assert isinstance(node, (Linear, Conv))
    weight, bias = _integers_or_floats(to, step)
    key = (node.weight, step.number if to.fixed else 0)
    if key not in to.added:
        to.added[key] = to.data.add(weight)
    fields = to.added[(node.weight, step.number)] = to.added[key]
    biases = NO_TENSOR if node.bias is None else to.data.add(bias)
    to.written.weight_models = max(to.written.weight_models, fields.bit_models)
    to.written.entries = max(to.written.entries, fields.entries, biases.entries)
    to.written.bias_models = max(to.written.bias_models, biases.bit_models)
    return [("weight", tensor_constant(fields)), ("bias", tensor_constant(biases)), ("finish", _finish(to, step))]


def _integers_or_floats(to: StepContext, step: FusedStep) -> tuple[Values, Values]:
    if to.fixed is not None:
        layer = to.fixed.layers[step.number]
        return layer.weight, layer.bias
    node = step.node
    assert isinstance(node, (Linear, Conv))
    bias = np.zeros(0, np.float32) if node.bias is None else to.tensors[node.bias]
    return Values(to.tensors[node.weight]), Values(bias)


def _finish(to: StepContext, step: FusedStep) -> str:
    if to.fixed is None:
        return "{%s, %s}" % tuple(float_constant(x) for x in step.limits)  # noqa: UP031 - braces
    code, source = to.fixed.codes[step.target], to.fixed.codes[step.sources[0]]
    scales = to.fixed.layers[step.number].scales
    if not scales:
        return f"{{0, 0, {source.zero}, 0, 0, 0}}"
    at = to.data.table(b"".join(scale.to_bytes(3, "little") for scale in scales))
    low, high = code.limits(*step.limits)
    return f"{{{at}, {int(len(scales) > 1)}, {source.zero}, {code.zero}, {low}, {high}}}"


def _call_each(to: StepContext, function: str, name: str, step: FusedStep, lead: int, size: int, made: int) -> None:
    """Call a layer's function, or call it for each of `lead` parts of its input."""
    source, target = to.place(step.sources[0]), to.place(step.target)
    if lead == 1:
        to.say(f"{function}(&{name}, {source}, {target});")
        return
    to.say(
        f"for (index_t i = 0; i < {lead}; i++) {{",
        f"    {function}(&{name}, {source} + i * {size}, {target} + i * {made});",
        "}",
    )
