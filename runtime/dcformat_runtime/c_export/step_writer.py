"""Writes the C of each step: constants that describe it, and the statements that run it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isinf, prod

import numpy as np

from dcformat.errors import GraphError
from dcformat.graph import (
    Add,
    AvgPool,
    Binary,
    Concat,
    Conv,
    Linear,
    MaxPool,
    Node,
    Pad,
    Quantize,
    Reduce,
    ReLU,
    Shape,
    Slice,
    Transpose,
    Unary,
)
from dcformat_runtime.c_export.c_text import (
    copy_loops,
    float_constant,
    index_text,
    pair,
    repetition,
    strides,
    tensor_constant,
)
from dcformat_runtime.c_export.fixed_network import FixedNetwork
from dcformat_runtime.c_export.steps import Step
from dcformat_runtime.c_export.tensor_data import NO_TENSOR, TensorData, TensorFields, Values
from dcformat_runtime.compile import rows
from dcformat_runtime.network import Floats

#: The greatest number that a field of one byte or of two bytes holds.
_BYTE, _HALF = 255, 65535
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


@dataclass
class Written:
    """What the steps of a program need: parts, constants, statements, and the sizes of the decoder's arrays."""

    parts: list[str] = field(default_factory=list)
    constants: list[str] = field(default_factory=list)
    statements: list[str] = field(default_factory=list)
    padded: bool = False
    row_entries: int = 0
    weight_models: int = 0
    bias_models: int = 0
    entries: int = 0
    sums_out: bool = False

    def need(self, *parts: str) -> None:
        """Note that the program needs these parts, in this order."""
        self.parts += [part for part in parts if part not in self.parts]


class StepWriter:
    """Writes steps one after the other; `written` collects them.

    Parameters
    ----------
    tensors : mapping of str to ndarray
        Dense float32 weights.
    shapes : sequence of tuple of int
        The shape of every value.
    place : callable
        Returns the C expression for the memory of a value.
    data : TensorData
        Receives the weights.
    fixed : FixedNetwork or None
        The integers, for fixed point.
    """

    def __init__(
        self, tensors: Mapping[str, Floats], shapes: Sequence[Shape], place: Callable[[int], str], data: TensorData,
        fixed: FixedNetwork | None,
    ) -> None:  # fmt: skip
        self.written = Written(sums_out=fixed is not None and fixed.sums_out)
        self._tensors, self._shapes, self._place, self._data, self._fixed = tensors, shapes, place, data, fixed
        self._added: dict[tuple[str, int], TensorFields] = {}

    def write(self, step: Step) -> None:
        """Write a step."""
        if step.kind == "alias" or (self._fixed and step.number in self._fixed.aliases):
            source, target = self._place(step.sources[0]), self._place(step.target)
            if source != target:
                self._say(f"memcpy({target}, {source}, {prod(self._shapes[step.target])} * sizeof(value_t));")
            return
        write: dict[str, Callable[[Step], None]] = {
            "linear": self._linear, "conv": self._conv, "max_pool": self._pool, "mean_pool": self._pool,
            "reduce": self._reduce, "softmax": self._softmax, "elementwise": self._elementwise, "add": self._add,
            "move": self._move,
        }  # fmt: skip
        write[step.kind](step)

    # --- layers with weights ----------------------------------------------------------------------------------

    def _linear(self, step: Step) -> None:
        node = step.node
        assert isinstance(node, Linear)
        out, columns = self._tensors[node.weight].shape
        name = f"linear_{step.number}"
        fields = [*self._layer(step), ("rows", self._fits(out, _HALF, name)), ("columns", str(columns))]
        self._constant("linear_t", name, fields)
        lead = prod(self._shapes[step.sources[0]][:-1])
        function = "linear"
        if self._fixed is not None and not self._fixed.layers[step.number].scales:
            function = "linear_sums"
        self.written.need("linear", "linear_sums" if function == "linear_sums" else "linear_values")
        self._call_each(function, name, step, lead, columns, out)

    def _conv(self, step: Step) -> None:
        node = step.node
        assert isinstance(node, Conv)
        out, channels, *kernel = self._tensors[node.weight].shape
        spatial = len(kernel)
        name = f"conv_{step.number}"
        source, target = self._shapes[step.sources[0]], self._shapes[step.target]
        pool = (1,) * spatial if step.pool is None else step.pool.kernel
        spans = [(k - 1) * d for k, d in zip(kernel, node.dilation, strict=True)]
        source_size, target_size = pair(source[-spatial:]), pair(target[-spatial:])
        alone = prod(kernel) == 1 and step.pool is None and not any((*node.padding, *node.padding_end))
        if alone and source_size == target_size:
            # Each position is computed alone, so all of them may form a single line.
            source_size = target_size = (1, prod(source_size))
        sizes = [channels, *source_size, out, out // node.groups, *target_size]
        names = ("channels", "height", "width", "out", "group", "rows", "columns")
        fields = [*self._layer(step)]
        fields += [(key, self._fits(size, _HALF, name)) for key, size in zip(names, sizes, strict=True)]
        pairs = {
            "kernel": pair(kernel), "stride": pair(node.stride), "padding": pair(node.padding, 0),
            "dilation": pair(node.dilation), "pool": pair(pool),
        }  # fmt: skip
        for sizes_of_two in (*pairs.values(), spans):
            self._fits(max(sizes_of_two), _BYTE, name)
        fields += [(key, "{%d, %d}" % both) for key, both in pairs.items()]  # noqa: UP031 - braces
        self._constant("conv_t", name, fields)
        self.written.need("conv")
        self.written.padded |= any(node.padding) or any(node.padding_end)
        weight = self._integers_or_floats(step)[0].numbers.reshape(out, -1)
        counts = (
            np.count_nonzero(weight, axis=1) if self._added[(node.weight, step.number)].gap_bits else [weight.shape[1]]
        )
        self.written.row_entries = max(self.written.row_entries, int(np.max(counts)), 1)
        lead = prod(source[: -spatial - 1])
        self._call_each("conv", name, step, lead, prod(source) // lead, prod(target) // lead)

    def _layer(self, step: Step) -> list[tuple[str, str]]:
        """Return the fields that all layers begin with."""
        node = step.node
        assert isinstance(node, (Linear, Conv))
        weight, bias = self._integers_or_floats(step)
        key = (node.weight, step.number if self._fixed else 0)
        if key not in self._added:
            self._added[key] = self._data.add(weight)
        fields = self._added[(node.weight, step.number)] = self._added[key]
        biases = NO_TENSOR if node.bias is None else self._data.add(bias)
        self.written.weight_models = max(self.written.weight_models, fields.bit_models)
        self.written.entries = max(self.written.entries, fields.entries, biases.entries)
        self.written.bias_models = max(self.written.bias_models, biases.bit_models)
        return [("weight", tensor_constant(fields)), ("bias", tensor_constant(biases)), ("finish", self._finish(step))]

    def _integers_or_floats(self, step: Step) -> tuple[Values, Values]:
        if self._fixed is not None:
            layer = self._fixed.layers[step.number]
            return layer.weight, layer.bias
        node = step.node
        assert isinstance(node, (Linear, Conv))
        bias = np.zeros(0, np.float32) if node.bias is None else self._tensors[node.bias]
        return Values(self._tensors[node.weight]), Values(bias)

    def _finish(self, step: Step) -> str:
        if self._fixed is None:
            return "{%s, %s}" % tuple(float_constant(x) for x in step.limits)  # noqa: UP031 - braces
        code, source = self._fixed.codes[step.target], self._fixed.codes[step.sources[0]]
        scales = self._fixed.layers[step.number].scales
        if not scales:
            return f"{{0, 0, {source.zero}, 0, 0, 0}}"
        at = self._data.table(b"".join(scale.to_bytes(3, "little") for scale in scales))
        low, high = code.limits(*step.limits)
        return f"{{{at}, {int(len(scales) > 1)}, {source.zero}, {code.zero}, {low}, {high}}}"

    def _call_each(self, function: str, name: str, step: Step, lead: int, size: int, made: int) -> None:
        """Call a layer's function, or call it for each of `lead` parts of its input."""
        source, target = self._place(step.sources[0]), self._place(step.target)
        if lead == 1:
            self._say(f"{function}(&{name}, {source}, {target});")
            return
        self._say(
            f"for (index_t i = 0; i < {lead}; i++) {{",
            f"    {function}(&{name}, {source} + i * {size}, {target} + i * {made});",
            "}",
        )

    # --- pools, reductions, softmax ---------------------------------------------------------------------------

    def _pool(self, step: Step) -> None:
        node = step.node
        assert isinstance(node, (MaxPool, AvgPool))
        spatial = len(node.kernel)
        name = f"pool_{step.number}"
        source, target = self._shapes[step.sources[0]], self._shapes[step.target]
        sizes = [prod(source[:-spatial]), *pair(source[-spatial:]), *pair(target[-spatial:])]
        names = ("channels", "height", "width", "rows", "columns")
        fields = [(key, self._fits(size, _HALF, name)) for key, size in zip(names, sizes, strict=True)]
        pairs = {
            "kernel": pair(node.kernel), "stride": pair(node.stride), "padding": pair(node.padding, 0),
            "padding_end": pair(node.padding_end, 0),
        }  # fmt: skip
        for sizes_of_two in pairs.values():
            self._fits(max(sizes_of_two), _BYTE, name)
        fields += [(key, "{%d, %d}" % both) for key, both in pairs.items()]  # noqa: UP031 - braces
        mean = isinstance(node, AvgPool)
        fields.append(("count_padding", str(int(isinstance(node, AvgPool) and node.count_include_pad))))
        fields.append(("zero", str(self._fixed.codes[step.sources[0]].zero) if self._fixed else "0.0f"))
        self._constant("pool_t", name, fields)
        if mean and self._fixed:
            self.written.need("quotient")
        if mean and not self._fixed and not step.segment:
            raise GraphError(
                f"node {step.number}", got="a mean that the runtime adds in no fixed order", expected="int8"
            )
        self.written.need("pool", "mean_pool" if mean else "max_pool")
        function = "mean_of" if mean else "greatest"
        self._say(f"pool(&{name}, {self._place(step.sources[0])}, {self._place(step.target)}, {function});")

    def _reduce(self, step: Step) -> None:
        node, shape = step.node, self._shapes[step.sources[0]]
        assert isinstance(node, Reduce)
        found = rows.plan(node, shape)
        if found is None:
            raise GraphError(
                f"node {step.number}", got=f"{node.function} over {node.axes}", expected="the last dimensions"
            )
        source, target, count = self._place(step.sources[0]), self._place(step.target), found.size // found.length
        if node.function == "max":
            self.written.need("row_extremes")
            self._say(f"row_maxima({source}, {target}, {count}, {found.length});")
        elif self._fixed:
            self.written.need("quotient", "fixed_means")
            zero = self._fixed.codes[step.sources[0]].zero
            self._say(f"row_means({source}, {target}, {count}, {found.length}, {zero});")
        elif step.segment:
            self.written.need("global_mean")
            self._say(f"global_mean({source}, {target}, {count}, {found.length});")
        elif node.function in ("mean", "sum"):
            self.written.need("row_sums", "row_means")
            divisor = f"{found.length}.0" if node.function == "mean" else "1.0"
            self._say(f"row_means({source}, {target}, {count}, {found.length}, {divisor});")
        else:
            raise GraphError(f"node {step.number}", got=node.function, expected="mean, sum or max")

    def _softmax(self, step: Step) -> None:
        shape = self._shapes[step.target]
        if rows.plan(step.node, shape) is None:
            raise GraphError(f"node {step.number}", got="softmax over an inner dimension", expected="over the last")
        found = rows.plan(step.node, shape)
        assert found is not None
        source, target, count = self._place(step.sources[0]), self._place(step.target), found.size // found.length
        if not self._fixed and not step.segment:
            self.written.need("functions", "row_sums", "row_softmax")
            self._say(f"row_softmax({source}, {target}, {count}, {found.length});")
            return
        call = f"ordered_softmax({source} + i, {target} + i, {found.length});"
        if self._fixed:
            self.written.need("fixed_softmax")
            table = self._fixed.tables[step.number]
            at = self._data.table(table.tobytes())
            call = f"softmax({source} + i, {target} + i, {found.length}, {at}, {len(table)});"
        else:
            self.written.need("ordered_softmax")
        if count == 1:
            self._say(call.replace(" + i", ""))
        else:
            self._say(f"for (index_t i = 0; i < {found.size}; i += {found.length}) {{", f"    {call}", "}")

    # --- elements ---------------------------------------------------------------------------------------------

    def _elementwise(self, step: Step) -> None:
        size = prod(self._shapes[step.target])
        target = self._place(step.target)
        if self._fixed is not None and step.number in self._fixed.limits:
            x, (low, high) = f"({self._place(step.sources[0])})[i]", self._fixed.limits[step.number]
            self._say(f"for (index_t i = 0; i < {size}; i++) {{", f"    int32_t x = {x};")
            self._say(f"    ({target})[i] = (value_t)(x < {low} ? {low} : x > {high} ? {high} : x);", "}")
            return
        if self._fixed is not None:
            at = self._data.table(self._fixed.tables[step.number].tobytes())
            source = self._place(step.sources[0])
            value = f"data_byte({at}u + ({source})[i])"
        else:
            value = self._expression(step)
        self._say(f"for (index_t i = 0; i < {size}; i++) {{", f"    ({target})[i] = {value};", "}")

    def _expression(self, step: Step) -> str:
        node = step.node
        operands = [self._operand(x, step) for x in node.inputs]
        match node:
            case ReLU():
                return "{0} > 0.0f ? {0} : 0.0f".format(*operands)
            case Add():
                return " + ".join(operands)
            case Binary() if node.function in _OPERATORS:
                return _OPERATORS[node.function].format(*operands)
            case Unary() if node.function in _FUNCTIONS:
                text, parts = _FUNCTIONS[node.function]
                self.written.need(*parts)
                return text.format(*operands)
            case Quantize():
                self.written.need("rounded", "quantized")
                numbers = (node.scale, node.zero_point, node.low, node.high)
                return f"quantized({operands[0]}, {', '.join(float_constant(x) for x in numbers)})"
        raise GraphError(f"node {step.number}", got=getattr(node, "function", node.kind), expected="another function")

    def _operand(self, operand: int | str | float, step: Step) -> str:
        shape = self._shapes[step.target]
        if isinstance(operand, float):
            return float_constant(operand)
        if isinstance(operand, int):
            inner, count = repetition(self._shapes[operand], shape, step.number)
            return f"({self._place(operand)})[{index_text(inner, count, prod(shape))}]"
        tensor = self._tensors[operand]
        inner, count = repetition(tensor.shape, shape, step.number)
        at = self._data.table(tensor.astype("<f4").tobytes())
        self.written.need("float_table")
        return f"float_at({at}u, {index_text(inner, count, prod(shape))})"

    def _add(self, step: Step) -> None:
        first, second = (self._operand(value, step) for value in step.sources)
        size, target = prod(self._shapes[step.target]), self._place(step.target)
        if self._fixed is None:
            low, high = step.limits
            value = f"{first} + {second}"
            lines = [f"    float sum = {value};"]
            if not isinf(low):
                lines.append(f"    sum = sum > {float_constant(low)} ? sum : {float_constant(low)};")
            if not isinf(high):
                lines.append(f"    sum = sum < {float_constant(high)} ? sum : {float_constant(high)};")
            self._say(f"for (index_t i = 0; i < {size}; i++) {{", *lines, f"    ({target})[i] = sum;", "}")
            return
        codes, code, sums = self._fixed.codes, self._fixed.codes[step.target], self._fixed.sums[step.number]
        zeros = [codes[value].zero for value in step.sources]
        low_high = code.limits(*step.limits)
        self._constant("sum_of_t", f"sum_{step.number}", [
            ("zero", "{%d, %d}" % tuple(zeros)), ("multiplier", "{%d, %d}" % sums.multipliers),  # noqa: UP031
            ("shift", str(sums.shift)), ("out_zero", str(code.zero)), ("low", str(low_high[0])),
            ("high", str(low_high[1])),
        ])  # fmt: skip
        self.written.need("fixed_add")
        call = f"sum_of(&sum_{step.number}, {first}, {second})"
        self._say(f"for (index_t i = 0; i < {size}; i++) {{", f"    ({target})[i] = {call};", "}")

    # --- moving elements --------------------------------------------------------------------------------------

    def _move(self, step: Step) -> None:
        node, out = step.node, self._shapes[step.target]
        steps = strides(out)
        target = self._place(step.target)
        if isinstance(node, Pad):
            if node.mode != "constant":
                raise GraphError(f"node {step.number}", got=f"pad {node.mode}", expected="pad constant")
            self._say(
                f"for (index_t i = 0; i < {prod(out)}; i++) {{", f"    ({target})[i] = {self._fill(step, node)};", "}"
            )
        at = 0
        for value in step.sources:
            shape = self._shapes[value]
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
            self._say(
                *copy_loops(sizes, (self._place(value), source_at, source_steps), (target, target_at, target_steps))
            )

    def _fill(self, step: Step, node: Pad) -> str:
        if self._fixed is None:
            return float_constant(node.value)
        return str(self._fixed.codes[step.target].limits(node.value, node.value)[0])

    # --- text -------------------------------------------------------------------------------------------------

    def _constant(self, kind: str, name: str, fields: Sequence[tuple[str, str]]) -> None:
        lines = [f"    .{key} = {value}," for key, value in fields]
        self.written.constants.append("\n".join([f"static const {kind} {name} = {{", *lines, "};"]))

    def _say(self, *lines: str) -> None:
        self.written.statements += lines

    def _fits(self, number: int, limit: int, name: str) -> str:
        if number > limit:
            raise GraphError(f"{name} for C", got=number, expected=f"at most {limit}")
        return str(number)


def works_in_place(node: Node) -> bool:
    """Return whether a step may overwrite its first operand."""
    return isinstance(node, (ReLU, Unary, Quantize)) or (
        isinstance(node, (Add, Binary)) and isinstance(node.inputs[0], int)
    )
