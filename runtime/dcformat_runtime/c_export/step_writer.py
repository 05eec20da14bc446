"""Writes the C of each step: constants that describe it, and the statements that run it."""

from __future__ import annotations

from math import prod

from dcformat_runtime.c_export import element_steps, layer_steps, row_steps
from dcformat_runtime.c_export.step_context import StepContext
from dcformat_runtime.c_export.steps import FusedStep

_WRITERS = {
    "linear": layer_steps.write_linear, "conv": layer_steps.write_conv, "max_pool": row_steps.write_pool,
    "mean_pool": row_steps.write_pool, "reduce": row_steps.write_reduction, "softmax": row_steps.write_softmax,
    "elementwise": element_steps.write_elementwise, "add": element_steps.write_sum, "move": element_steps.write_move,
}  # fmt: skip


def write_step(to: StepContext, step: FusedStep) -> None:
    """Write a step after those already written."""
    if step.kind == "alias":
        source, target = to.place(step.sources[0]), to.place(step.target)
        if source != target:
            to.say(f"memcpy({target}, {source}, {prod(to.shapes[step.target])} * sizeof(value_t));")
        return
    _WRITERS[step.kind](to, step)
