"""Writes the C of pools, reductions and softmax."""

from __future__ import annotations

from math import prod

from dcformat.errors import GraphError
from dcformat.graph import AvgPool, MaxPool, Reduce
from dcformat_runtime.c_export.c_text import pair
from dcformat_runtime.c_export.step_context import BYTE, HALF, StepContext, fitting
from dcformat_runtime.c_export.steps import FusedStep
from dcformat_runtime.compile import rows


def write_pool(to: StepContext, step: FusedStep) -> None:
    """Write a pool."""
    node = step.node
    assert isinstance(node, (MaxPool, AvgPool))
    spatial = len(node.kernel)
    name = f"pool_{step.number}"
    source, target = to.shapes[step.sources[0]], to.shapes[step.target]
    sizes = [prod(source[:-spatial]), *pair(source[-spatial:]), *pair(target[-spatial:])]
    names = ("channels", "height", "width", "rows", "columns")
    fields = [(key, fitting(size, HALF, name)) for key, size in zip(names, sizes, strict=True)]
    pairs = {
        "kernel": pair(node.kernel), "stride": pair(node.stride), "padding": pair(node.padding, 0),
        "padding_end": pair(node.padding_end, 0),
    }  # fmt: skip
    for sizes_of_two in pairs.values():
        fitting(max(sizes_of_two), BYTE, name)
    fields += [(key, "{%d, %d}" % both) for key, both in pairs.items()]  # noqa: UP031 - braces
    mean = isinstance(node, AvgPool)
    fields.append(("count_padding", str(int(isinstance(node, AvgPool) and node.count_include_pad))))
    fields.append(("zero", str(to.fixed.codes[step.sources[0]].zero) if to.fixed else "0.0f"))
    to.constant("pool_t", name, fields)
    if mean and to.fixed:
        to.written.need("quotient")
    if mean and not to.fixed and not step.segment:
        raise GraphError(f"node {step.number}", got="a mean that the runtime adds in no fixed order", expected="int8")
    to.written.need("pool", "mean_pool" if mean else "max_pool")
    function = "mean_of" if mean else "greatest"
    to.say(f"pool(&{name}, {to.place(step.sources[0])}, {to.place(step.target)}, {function});")


def write_reduction(to: StepContext, step: FusedStep) -> None:
    """Write a reduction of rows."""
    node, shape = step.node, to.shapes[step.sources[0]]
    assert isinstance(node, Reduce)
    found = rows.plan(node, shape)
    if found is None:
        raise GraphError(f"node {step.number}", got=f"{node.function} over {node.axes}", expected="the last dimensions")
    source, target, count = to.place(step.sources[0]), to.place(step.target), found.size // found.length
    if node.function == "max":
        to.written.need("row_extremes")
        to.say(f"row_maxima({source}, {target}, {count}, {found.length});")
    elif to.fixed:
        to.written.need("quotient", "fixed_means")
        zero = to.fixed.codes[step.sources[0]].zero
        to.say(f"row_means({source}, {target}, {count}, {found.length}, {zero});")
    elif step.segment:
        to.written.need("global_mean")
        to.say(f"global_mean({source}, {target}, {count}, {found.length});")
    elif node.function in ("mean", "sum"):
        to.written.need("row_sums", "row_means")
        divisor = f"{found.length}.0" if node.function == "mean" else "1.0"
        to.say(f"row_means({source}, {target}, {count}, {found.length}, {divisor});")
    else:
        raise GraphError(f"node {step.number}", got=node.function, expected="mean, sum or max")


def write_softmax(to: StepContext, step: FusedStep) -> None:
    """Write a softmax of rows."""
    shape = to.shapes[step.target]
    if rows.plan(step.node, shape) is None:
        raise GraphError(f"node {step.number}", got="softmax over an inner dimension", expected="over the last")
    found = rows.plan(step.node, shape)
    assert found is not None
    source, target, count = to.place(step.sources[0]), to.place(step.target), found.size // found.length
    if not to.fixed and not step.segment:
        to.written.need("functions", "row_sums", "row_softmax")
        to.say(f"row_softmax({source}, {target}, {count}, {found.length});")
        return
    call = f"ordered_softmax({source} + i, {target} + i, {found.length});"
    if to.fixed:
        to.written.need("fixed_softmax")
        table = to.fixed.tables[step.number]
        at = to.data.table(table.tobytes())
        call = f"softmax({source} + i, {target} + i, {found.length}, {at}, {len(table)});"
    else:
        to.written.need("ordered_softmax")
    if count == 1:
        to.say(call.replace(" + i", ""))
    else:
        to.say(f"for (index_t i = 0; i < {found.size}; i += {found.length}) {{", f"    {call}", "}")
