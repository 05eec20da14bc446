"""Writes a network as plain dense C: nested loops over arrays of int8 weights, like those of generators such as onnx2c.

`programs.py` compares exported programs with this. Values have 8 bits and the scales of the exported program;
weights are rounded to 8 bits, so that the results differ a little.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np
from dcformat_runtime.as_floats import Floats, to_float32
from dcformat_runtime.c_export import fixed_network
from dcformat_runtime.c_export.real_numbers import with_real_numbers
from dcformat_runtime.c_export.steps import FusedStep, find_steps
from dcformat_runtime.c_export.value_ranges import calibrate

from dcformat.graph import AvgPool, Conv, MaxPool, Reduce, Transpose
from dcformat.model import Model

HEAD = """
#include "model.h"

static uint8_t finish(int32_t sum, int32_t multiplier, int shift, int32_t zero)
{
    int32_t x = (int32_t)(((int64_t)sum * multiplier + ((int64_t)1 << (shift - 1))) >> shift) + zero;
    return (uint8_t)(x < 0 ? 0 : x > 255 ? 255 : x);
}

int model_check(void)
{
    return 1;
}
"""
CONV = """
    for (int o = 0; o < {out}; o++)
        for (int y = 0; y < {rows}; y++)
            for (int x = 0; x < {columns}; x++) {{
                int32_t sum = bias_{n}[o];
                for (int c = 0; c < {channels}; c++)
                    for (int i = 0; i < {kh}; i++)
                        for (int j = 0; j < {kw}; j++) {{
                            int at_y = y * {sh} + i - {ph}, at_x = x * {sw} + j - {pw};
                            if ({guard})
                                sum += weight_{n}[((o * {channels} + c) * {kh} + i) * {kw} + j] * (
                                    {source}[((o / {group} * {channels} + c) * {height} + at_y) * {width} + at_x]
                                    - {zero});
                        }}
                {target}[(o * {rows} + y) * {columns} + x] = finish(sum, {multiplier}, {shift}, {out_zero});
            }}
"""
LINEAR = """
    for (int o = 0; o < {out}; o++) {{
        int32_t sum = bias_{n}[o];
        for (int i = 0; i < {columns}; i++)
            sum += weight_{n}[o * {columns} + i] * ({source}[i] - {zero});
        {target}[o] = {result};
    }}
"""
POOL = """
    for (int c = 0; c < {channels}; c++)
        for (int y = 0; y < {rows}; y++)
            for (int x = 0; x < {columns}; x++) {{
                int result = 0;
                for (int i = 0; i < {kh}; i++)
                    for (int j = 0; j < {kw}; j++) {{
                        int value = {source}[(c * {height} + y * {sh} + i) * {width} + x * {sw} + j];
                        {combine}
                    }}
                {target}[(c * {rows} + y) * {columns} + x] = (uint8_t)({result});
            }}
"""


def dense_program(model: Model, files: Mapping[str, str], inputs: Floats | None) -> dict[str, str]:
    """Return the files of a dense program with the interface of an exported one, whose files are `files`."""
    model = with_real_numbers(model)
    graph = model.graph
    assert graph is not None
    shapes = graph.shapes({name: tensor.shape for name, tensor in model.tensors.items()})
    tensors = {name: to_float32(tensor, tensor.to_dense()) for name, tensor in model.tensors.items()}
    steps = find_steps(graph, {name: tensor.shape for name, tensor in model.tensors.items()}, True)
    ranges = None if inputs is None else calibrate(graph, shapes, tensors, inputs).ranges
    fixed = fixed_network.fix(graph, steps, tensors, ranges, 8)
    constants, variables, body = [], [], []
    names = {0: "input"}
    for step in steps:
        source = names[step.sources[0]]
        if step.kind in ("alias", "elementwise", "softmax"):
            names[step.target] = source
            continue
        names[step.target] = target = f"value_{step.target}"
        if step.kind in ("move", "add"):
            variables.append(f"static uint8_t {target}[{prod(shapes[step.target])}];")
            body.append(_moved_or_added(fixed, step, shapes, [names[value] for value in step.sources], target))
            continue
        if step.kind in ("conv", "linear"):
            constants += _weights(fixed, step)
        before = f"before_{step.number}"
        if step.pool is not None:
            body.append(_code(fixed, step, shapes, source, before))
            variables.append(f"static uint8_t {before}[{prod(shapes[step.number + 1])}];")
            body.append(_pool(step.pool, shapes[step.number + 1], shapes[step.target], before, target, 0))
        else:
            body.append(_code(fixed, step, shapes, source, target))
        kind = "int32_t" if step.kind == "linear" and not fixed.layers[step.number].scales else "uint8_t"
        variables.append(f"static {kind} {target}[{prod(shapes[step.target])}];")
    last = names[graph.outputs[0].value]
    body.append(f"\n    for (int i = 0; i < MODEL_OUTPUTS; i++)\n        output[i] = {last}[i];\n")
    run = "void model_run(const model_input_t *input, model_output_t *output)\n{" + "".join(body) + "}\n"
    return {**files, "model.c": "\n".join([HEAD, *constants, *variables, "", run])}


def _moved_or_added(
    fixed: fixed_network.FixedNetwork, step: FusedStep, shapes: list[tuple[int, ...]], sources: list[str], target: str
) -> str:  # fmt: skip
    """Return a transposition of three dimensions, or a sum."""
    node, codes = step.node, fixed.codes
    if isinstance(node, Transpose):
        b, c = shapes[step.sources[0]][1:]
        steps = [(b * c, c, 1)[axis] for axis in node.order]
        x, y, z = shapes[step.target]
        return f"""
    for (int i = 0; i < {x}; i++)
        for (int j = 0; j < {y}; j++)
            for (int k = 0; k < {z}; k++)
                {target}[(i * {y} + j) * {z} + k] = {sources[0]}[i * {steps[0]} + j * {steps[1]} + k * {steps[2]}];
"""
    (first, second), shift = fixed.sums[step.number]
    zeros = [codes[value].zero for value in step.sources]
    total = f"({sources[0]}[i] - {zeros[0]}) * {first} + ({sources[1]}[i] - {zeros[1]}) * {second}"
    return f"""
    for (int i = 0; i < {prod(shapes[step.target])}; i++)
        {target}[i] = finish({total}, 1, {shift}, {codes[step.target].zero});
"""


def _weights(fixed: fixed_network.FixedNetwork, step: FusedStep) -> list[str]:
    layer = fixed.layers[step.number]
    weight = np.asarray(layer.weight.numbers)
    bits = max(int(np.abs(weight).max()).bit_length() - 7, 0)
    weight = np.clip(weight >> bits, -127, 127)
    bias = (np.asarray(layer.bias.numbers) << layer.bias.shift) >> bits
    return [
        f"static const int8_t weight_{step.number}[] = {{{', '.join(map(str, weight.ravel().tolist()))}}};",
        f"static const int32_t bias_{step.number}[] = {{{', '.join(map(str, bias.ravel().tolist()))}}};",
    ]


def _code(
    fixed: fixed_network.FixedNetwork, step: FusedStep, shapes: list[tuple[int, ...]], source: str, target: str
) -> str:
    node, n = step.node, step.number
    inner, outer = shapes[step.sources[0]], shapes[n + 1]
    zero = fixed.codes[step.sources[0]].zero
    if isinstance(node, AvgPool):
        return _pool(node, inner, outer, source, target, prod(node.kernel))
    if isinstance(node, Reduce):  # a mean over height and width
        whole = AvgPool(node.inputs, inner[1:], inner[1:])
        return _pool(whole, inner, (*inner[:1], 1, 1), source, target, prod(inner[1:]))
    layer = fixed.layers[n]
    bits = max(int(np.abs(layer.weight.numbers).max()).bit_length() - 7, 0)
    scale = layer.scales[0] if layer.scales else 0
    shift, out_zero = max((scale >> 16) + 16 - bits, 1), fixed.codes[step.target].zero
    if isinstance(node, Conv):
        out, channels, kh, kw = np.asarray(layer.weight.numbers).reshape(outer[0], -1, *fixed.kernels[n]).shape
        padded = any(node.padding) or any(node.padding_end)
        guard = f"at_y >= 0 && at_y < {inner[1]} && at_x >= 0 && at_x < {inner[2]}" if padded else "1"
        return CONV.format(
            n=n, out=out, channels=channels, kh=kh, kw=kw, rows=outer[1], columns=outer[2], height=inner[1],
            width=inner[2], sh=node.stride[0], sw=node.stride[1], ph=node.padding[0], pw=node.padding[1], guard=guard,
            group=out // node.groups, source=source, target=target, zero=zero, multiplier=scale & 0x7FFF, shift=shift,
            out_zero=out_zero,
        )  # fmt: skip
    result = f"finish(sum, {scale & 0x7FFF}, {shift}, {out_zero})" if layer.scales else "sum"
    return LINEAR.format(
        n=n, out=outer[-1], columns=inner[-1], source=source, target=target, zero=zero, result=result
    )  # fmt: skip


def _pool(
    node: MaxPool | AvgPool, inner: tuple[int, ...], outer: tuple[int, ...], source: str, target: str, count: int
) -> str:  # fmt: skip
    combine = "result += value;" if count else "result = value > result ? value : result;"
    return POOL.format(
        channels=inner[0], rows=outer[1], columns=outer[2], height=inner[1], width=inner[2], kh=node.kernel[0],
        kw=node.kernel[1], sh=node.stride[0], sw=node.stride[1], source=source, target=target, combine=combine,
        result=f"(result + {count // 2}) / {count}" if count else "result",
    )  # fmt: skip
