"""Writes the C of operators that compute or move single elements."""

from __future__ import annotations

from math import isinf, prod

from dcformat.errors import GraphError
from dcformat.graph import Add, Binary, Concat, Node, Pad, Quantize, ReLU, Slice, Transpose, Unary
from dcformat_runtime.c_export.c_text import copy_loops, float_constant, index_text, repetition, strides
from dcformat_runtime.c_export.step_context import StepContext
from dcformat_runtime.c_export.steps import FusedStep

_FUNCTIONS = {
    "neg": ("-({0})", ()), "abs": ("fabsf({0})", ()), "floor": ("floorf({0})", ()), "ceil": ("ceilf({0})", ()),
    "sqrt": ("sqrtf({0})", ()), "round": ("rounded({0})", ("rounded",)),
    "exp": ("exponential({0})", ("functions",)), "sigmoid": ("sigmoid({0})", ("functions", "sigmoid")),
    "tanh": ("hyperbolic_tangent({0})", ("functions", "hyperbolic_tangent")),
}  # fmt: skip
_OPERATORS = {
    "sub": "{0} - {1}", "mul": "{0} * {1}", "div": "{0} / {1}", "minimum": "{0} < {1} ? {0} : {1}",
    "maximum": "{0} > {1} ? {0} : {1}", "equal": "{0} == {1} ? 1.0f : 0.0f", "less": "{0} < {1} ? 1.0f : 0.0f",
    "less_equal": "{0} <= {1} ? 1.0f : 0.0f",
}  # fmt: skip
#: Functions of the C library's math.h; each other function is part of the program.
MATH_FUNCTIONS = ("fabsf", "floorf", "ceilf", "sqrtf", "ldexp")


def write_elementwise(to: StepContext, step: FusedStep) -> None:
    """Write an operator on elements."""
    size = prod(to.shapes[step.target])
    target = to.place(step.target)
    if to.fixed is not None and step.number in to.fixed.limits:
        x, (low, high) = f"({to.place(step.sources[0])})[i]", to.fixed.limits[step.number]
        to.say(f"for (index_t i = 0; i < {size}; i++) {{", f"    int32_t x = {x};")
        to.say(f"    ({target})[i] = (value_t)(x < {low} ? {low} : x > {high} ? {high} : x);", "}")
        return
    if to.fixed is not None:
        at = to.data.table(to.fixed.tables[step.number].tobytes())
        source = to.place(step.sources[0])
        value = f"data_byte({at}u + ({source})[i])"
    else:
        value = _expression(to, step)
    to.say(f"for (index_t i = 0; i < {size}; i++) {{", f"    ({target})[i] = {value};", "}")


def _expression(to: StepContext, step: FusedStep) -> str:
    node = step.node
    operands = [_operand(to, x, step) for x in node.inputs]
    match node:
        case ReLU():
            return "{0} > 0.0f ? {0} : 0.0f".format(*operands)
        case Add():
            return " + ".join(operands)
        case Binary() if node.function in _OPERATORS:
            return _OPERATORS[node.function].format(*operands)
        case Unary() if node.function in _FUNCTIONS:
            text, parts = _FUNCTIONS[node.function]
            to.written.need(*parts)
            return text.format(*operands)
        case Quantize():
            to.written.need("rounded", "quantized")
            numbers = (node.scale, node.zero_point, node.low, node.high)
            return f"quantized({operands[0]}, {', '.join(float_constant(x) for x in numbers)})"
    raise GraphError(f"node {step.number}", got=getattr(node, "function", node.kind), expected="another function")


def _operand(to: StepContext, operand: int | str | float, step: FusedStep) -> str:
    shape = to.shapes[step.target]
    if isinstance(operand, float):
        return float_constant(operand)
    if isinstance(operand, int):
        inner, count = repetition(to.shapes[operand], shape, step.number)
        return f"({to.place(operand)})[{index_text(inner, count, prod(shape))}]"
    tensor = to.tensors[operand]
    inner, count = repetition(tensor.shape, shape, step.number)
    at = to.data.table(tensor.astype("<f4").tobytes())
    to.written.need("float_table")
    return f"float_at({at}u, {index_text(inner, count, prod(shape))})"


def write_sum(to: StepContext, step: FusedStep) -> None:
    """Write a sum of two values, and its activation."""
    first, second = (_operand(to, value, step) for value in step.sources)
    size, target = prod(to.shapes[step.target]), to.place(step.target)
    if to.fixed is None:
        low, high = step.limits
        value = f"{first} + {second}"
        lines = [f"    float sum = {value};"]
        if not isinf(low):
            lines.append(f"    sum = sum > {float_constant(low)} ? sum : {float_constant(low)};")
        if not isinf(high):
            lines.append(f"    sum = sum < {float_constant(high)} ? sum : {float_constant(high)};")
        to.say(f"for (index_t i = 0; i < {size}; i++) {{", *lines, f"    ({target})[i] = sum;", "}")
        return
    codes, code, sums = to.fixed.codes, to.fixed.codes[step.target], to.fixed.sums[step.number]
    zeros = [codes[value].zero for value in step.sources]
    low_high = code.limits(*step.limits)
    to.constant("sum_of_t", f"sum_{step.number}", [
        ("zero", "{%d, %d}" % tuple(zeros)), ("multiplier", "{%d, %d}" % sums.multipliers),  # noqa: UP031
        ("shift", str(sums.shift)), ("out_zero", str(code.zero)), ("low", str(low_high[0])),
        ("high", str(low_high[1])),
    ])  # fmt: skip
    to.written.need("fixed_add")
    call = f"sum_of(&sum_{step.number}, {first}, {second})"
    to.say(f"for (index_t i = 0; i < {size}; i++) {{", f"    ({target})[i] = {call};", "}")


def write_move(to: StepContext, step: FusedStep) -> None:
    """Write an operator that only moves elements."""
    node, out = step.node, to.shapes[step.target]
    steps = strides(out)
    target = to.place(step.target)
    if isinstance(node, Pad):
        if node.mode != "constant":
            raise GraphError(f"node {step.number}", got=f"pad {node.mode}", expected="pad constant")
        to.say(f"for (index_t i = 0; i < {prod(out)}; i++) {{", f"    ({target})[i] = {_fill(to, step, node)};", "}")
    at = 0
    for value in step.sources:
        shape = to.shapes[value]
        sizes, source_steps, target_steps = list(shape), strides(shape), list(steps)
        source_at = target_at = 0
        if isinstance(node, Transpose):
            sizes, source_steps = list(out), [source_steps[axis] for axis in node.order]
        elif isinstance(node, Slice):
            sizes = list(out)
            source_at = node.start * source_steps[node.axis]
            source_steps[node.axis] *= node.step
        elif isinstance(node, Pad):
            target_at = sum(before * n for before, n in zip(node.before, steps, strict=True))
        elif isinstance(node, Concat):
            target_at = at * steps[node.axis]
            at += shape[node.axis]
        to.say(*copy_loops(sizes, (to.place(value), source_at, source_steps), (target, target_at, target_steps)))


def _fill(to: StepContext, step: FusedStep, node: Pad) -> str:
    if to.fixed is None:
        return float_constant(node.value)
    return str(to.fixed.codes[step.target].limits(node.value, node.value)[0])


def works_in_place(node: Node) -> bool:
    """Return whether a step may overwrite its first operand."""
    return isinstance(node, (ReLU, Unary, Quantize)) or (
        isinstance(node, (Add, Binary)) and isinstance(node.inputs[0], int)
    )
