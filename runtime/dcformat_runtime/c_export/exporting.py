"""Exports a network: `export_c` chooses steps, numbers and places, and returns the files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.errors import GraphError
from dcformat.graph import Conv, Graph, Linear, Shape
from dcformat.layout import DEFAULT_MAX_MEMORY, DEFAULT_MAX_WORK
from dcformat.limits import require_memory, require_work
from dcformat.model import Model
from dcformat_runtime.as_floats import to_float32
from dcformat_runtime.c_export import fixed_emulation, fixed_network
from dcformat_runtime.c_export.element_steps import works_in_place
from dcformat_runtime.c_export.fixed_network import FixedNetwork
from dcformat_runtime.c_export.memory_plan import MemoryPlan, plan_memory
from dcformat_runtime.c_export.real_numbers import with_real_numbers
from dcformat_runtime.c_export.source_writer import SourceProgram, header, source, test_source
from dcformat_runtime.c_export.step_context import StepContext
from dcformat_runtime.c_export.step_writer import write_step
from dcformat_runtime.c_export.steps import FusedStep, find_steps
from dcformat_runtime.c_export.tensor_data import TensorData
from dcformat_runtime.c_export.unread_units import without_unread_units
from dcformat_runtime.c_export.value_ranges import Calibration, calibrate
from dcformat_runtime.network import check_graph, matrices
from dcformat_runtime.session import Session
from dcformat_runtime.weight_matrices import Floats

NumberFormat = Literal["float32", "int8", "int16"]
Form = Literal["fast", "small", "tables"]

#: Maximum number of bytes of a dense weight and of a value while a program is made, and the steps to code a weight.
_BYTES_A_WEIGHT, _BYTES_A_VALUE, _STEPS_A_WEIGHT = 64, 256, 256
#: Random inputs of the test program, if there are no others.
_SEED = 1
#: Elements of a value from which an index needs 32 bits.
_WIDE = 65536


@dataclass(frozen=True)
class ExportOptions:
    """How a program stores its weights and computes.

    Attributes
    ----------
    numbers : {'float32', 'int8', 'int16'}
        float32, or fixed point with values of 8 or 16 bits.
    form : {'fast', 'small', 'tables'}
        Huffman codes, adaptive arithmetic codes, or tables of gaps and codes that need no decoder.
    static_inputs : bool
        Whether the model owns its input and its output. The input then shares memory with other values.
    tests : int
        Number of inputs in the test program.
    """

    numbers: NumberFormat = "float32"
    form: Form = "fast"
    static_inputs: bool = False
    tests: int = 4


class FixedError(NamedTuple):
    """The difference between fixed point and float32 on the calibration inputs."""

    inputs: int
    largest: float
    mean: float
    same_argmax: float


class Exported(NamedTuple):
    """An exported program.

    Attributes
    ----------
    files : dict of str to str
        The texts of ``model.c``, ``model.h`` and ``test_model.c`` by name.
    data : bytes
        The coded weights, which are ``model_data`` in C.
    arena_bytes : int
        Bytes of memory for all values.
    error : FixedError or None
        The error of fixed point; None for float32, or without calibration inputs.
    """

    files: dict[str, str]
    data: bytes
    arena_bytes: int
    error: FixedError | None


def export_c(
    model: Model,
    options: ExportOptions | None = None,
    inputs: npt.NDArray[Any] | None = None,
    *,
    max_memory: int | None = DEFAULT_MAX_MEMORY,
    max_work: int | None = DEFAULT_MAX_WORK,
) -> Exported:
    """Write a network as C99 for microcontrollers (docs/microcontrollers.md).

    Parameters
    ----------
    model : Model
        A network with one input and one output.
    options : ExportOptions, optional
        How the program stores its weights and computes; by default float32 and Huffman codes.
    inputs : ndarray, optional
        Calibration inputs ``(inputs, *shape)``: float32, or uint8 pixels for a network with preprocessing. Fixed
        point needs them, unless the network is quantised; the test program uses the first of them.
    max_memory, max_work : int or None
        Maximum number of bytes and of steps, those for one run of the network included; None for no bound.

    Returns
    -------
    Exported

    Raises
    ------
    GraphError
        The export does not support an operator, a size or an order of sums in the network.
    FormatError
        The model is not valid, or takes more memory (`MemoryLimitError`) or work (`WorkLimitError`) than allowed.
    """
    options, model = options or ExportOptions(), with_real_numbers(model)
    shapes = check_graph(model.graph, matrices(model.tensors))
    graph = model.graph
    assert graph is not None
    _check_limits(model, graph, shapes, max_memory, max_work)
    fixed_point = options.numbers != "float32"
    # The order of some sums in the runtime depends on the shapes, so steps are found before units are removed.
    steps = find_steps(graph, {name: tensor.shape for name, tensor in model.tensors.items()}, fixed_point)
    tensors = without_unread_units(graph, shapes, _dense(model))
    shapes = graph.shapes({name: tensor.shape for name, tensor in tensors.items()})
    floats = _float_inputs(model, graph, inputs)
    calibration = None
    if fixed_point and inputs is not None:
        calibration = calibrate(graph, shapes, tensors, floats)
    fixed = None
    if fixed_point:
        bits = 8 if options.numbers == "int8" else 16
        ranges = None if calibration is None else calibration.ranges
        fixed = fixed_network.fix(graph, steps, tensors, ranges, bits)
    program = _program(graph, shapes, steps, tensors, fixed, options)
    tests = floats[: options.tests]
    if fixed is None:
        given: npt.NDArray[np.generic] = tests
        expected: npt.NDArray[np.generic] = _expected(model, tests)
    else:
        stored = fixed.codes[0].integers(tests)
        found = fixed_emulation.run(fixed, graph, steps, shapes, stored)
        given, expected = stored.astype(_dtype(program.input_type)), found.astype(_dtype(program.output_type))
    error = None
    if fixed is not None and calibration is not None:
        error = _error(fixed, graph, steps, shapes, floats, calibration)
    files = {
        "model.h": header(program),
        "model.c": source(program),
        "test_model.c": test_source(program, given.reshape(len(tests), -1), expected.reshape(len(tests), -1)),
    }
    return Exported(files, program.data, program.arena * _dtype(program.input_type).itemsize, error)


def _program(
    graph: Graph, shapes: list[Shape], steps: list[FusedStep], tensors: dict[str, Floats], fixed: FixedNetwork | None,
    options: ExportOptions,
) -> SourceProgram:  # fmt: skip
    sizes = [prod(shape) for shape in shapes]
    if max(sizes) >= 1 << 31:
        raise GraphError("size of a value", got=max(sizes), expected="less than 2^31 for C")
    output = graph.outputs[0].value
    changing = frozenset(step.number for step in steps if works_in_place(step.node))
    outside = {output: True} if options.static_inputs else {0: False, output: True}
    if fixed is not None:
        steps = [replace(step, kind="alias") if step.number in fixed.aliases else step for step in steps]
    plan = plan_memory(steps, sizes, output, changing, outside)
    data = TensorData(options.form)
    context = StepContext(tensors, shapes, lambda value: _place(plan, value, output), data, fixed)
    for step in steps:
        write_step(context, step)
    return SourceProgram(
        _title(graph, options), options.numbers, options.form, context.written, data.finish(), plan.elements, sizes[0],
        sizes[output], _place(plan, 0, output) if options.static_inputs else None,
        max([*sizes, *(prod(t.shape[1:]) for t in tensors.values())]) >= _WIDE, _header_lines(fixed, output),
    )  # fmt: skip


def _place(plan: MemoryPlan, value: int, output: int) -> str:
    root = plan.root[value]
    if root in plan.places:
        return f"arena + {plan.places[root]}" if plan.places[root] else "arena"
    return "output" if root == plan.root[output] else "input"


def _title(graph: Graph, options: ExportOptions) -> str:
    form = {"fast": "Huffman-coded", "small": "arithmetic-coded", "tables": "tabulated"}[options.form]
    shape = "x".join(map(str, graph.inputs[0].shape))
    operators = f"{len(graph.nodes)} operators for inputs of {shape}"
    return f"A neural network of {operators}, in {options.numbers}, with {form} weights."


def _header_lines(fixed: FixedNetwork | None, output: int) -> list[str]:
    if fixed is None:
        return []
    lines = ["/* An integer q stands for (q - ZERO) * SCALE. */"]
    for name, code in (("INPUT", fixed.codes[0]), ("OUTPUT", fixed.codes[output])):
        lines += [f"#define MODEL_{name}_SCALE {code.scale:.9g}", f"#define MODEL_{name}_ZERO {code.zero}"]
    return [*lines, ""]


def _check_limits(
    model: Model, graph: Graph, shapes: list[Shape], max_memory: int | None, max_work: int | None
) -> None:  # fmt: skip
    """Refuse a network whose dense weights, values or sums are too large to export."""
    used = [model.tensors[name] for name in {name for node in graph.nodes for name in node.tensors}]
    elements = sum(tensor.size for tensor in used)
    values = sum(map(prod, shapes))
    require_memory("exporting the network", _BYTES_A_WEIGHT * elements + _BYTES_A_VALUE * values, max_memory)
    steps = _STEPS_A_WEIGHT * elements
    for number, node in enumerate(graph.nodes):
        if isinstance(node, (Linear, Conv)):
            steps += prod(model.tensors[node.weight].shape[1:]) * prod(shapes[number + 1])
    require_work("exporting the network", steps + values, max_work)


def _dense(model: Model) -> dict[str, Floats]:
    assert model.graph is not None
    names = {name for node in model.graph.nodes for name in node.tensors}
    return {name: to_float32(model.tensors[name], model.tensors[name].to_dense()) for name in sorted(names)}


def _float_inputs(model: Model, graph: Graph, inputs: npt.NDArray[Any] | None) -> Floats:
    """Return inputs in the form in which the network computes with them; random ones if there are none."""
    shape = graph.inputs[0].shape
    rule = graph.preprocessing
    if inputs is None:
        random = np.random.default_rng(_SEED)
        if rule is None:
            low, high = {"int8": (-128, 128), "uint8": (0, 256)}.get(graph.inputs[0].dtype, (0, 0))
            if high:
                return random.integers(low, high, (8, *shape)).astype(np.float32)
            return random.standard_normal((8, *shape), np.float32)
        inputs = random.integers(0, 256, (8, *shape)).astype(np.uint8)
    inputs = inputs.reshape(-1, *shape)
    if inputs.dtype == np.uint8 and rule is not None:
        mean, std = (np.array(v, np.float32).reshape(-1, *(1,) * (len(shape) - 1)) for v in (rule.mean, rule.std))
        return np.asarray((inputs.astype(np.float32) / np.float32(255) - mean) / std, np.float32)
    return inputs.astype(np.float32)


def _expected(model: Model, inputs: Floats) -> Floats:
    """Return the results of the runtime in deterministic mode."""
    session = Session.from_model(model, deterministic=True, backend="numpy")
    port = session.inputs[0]
    return session.float32_outputs({port.name: inputs.astype(port.dtype)})[0]


def _error(
    fixed: FixedNetwork,
    graph: Graph,
    steps: list[FusedStep],
    shapes: list[Shape],
    inputs: Floats,
    calibration: Calibration,
) -> FixedError:
    found = []
    for start in range(0, len(inputs), 256):
        stored = fixed.codes[0].integers(inputs[start : start + 256])
        found.append(fixed_emulation.run(fixed, graph, steps, shapes, stored))
    numbers = fixed.codes[graph.outputs[0].value].numbers(np.concatenate(found)).reshape(len(inputs), -1)
    wanted = calibration.outputs.reshape(len(inputs), -1)
    far = np.abs(numbers - wanted)
    same = numbers.argmax(axis=1) == wanted.argmax(axis=1)
    return FixedError(len(inputs), float(far.max()), float(far.mean()), float(same.mean()))


def _dtype(c_type: str) -> np.dtype[Any]:
    return np.dtype("float32" if c_type == "float" else c_type.removesuffix("_t"))
