"""Exported C computes what the runtime computes: the same bits in float32, the same integers in fixed point."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest
from dcformat_runtime import Session
from dcformat_runtime.c_export import ExportOptions, export_c
from dcformat_runtime.c_export.exporting import Form, NumberFormat
from dcformat_runtime.c_export.toolchains import TARGETS, emulate, measure, missing

import dcformat
from dcformat.datasets import load_split
from dcformat.dense import from_dense
from dcformat.errors import GraphError, MemoryLimitError, WorkLimitError
from dcformat.graph import (
    Add,
    AvgPool,
    Binary,
    Concat,
    Conv,
    Flatten,
    Graph,
    Linear,
    MaxPool,
    Node,
    Normalize,
    Pad,
    Preprocessing,
    Quantize,
    Reduce,
    ReLU,
    Reshape,
    Slice,
    Softmax,
    Transpose,
    Unary,
)
from dcformat.model import Model
from tests.runtime.c_programs import COMPILERS, needs_c_compiler, run_on, run_tests
from tests.runtime.example_networks import NETS, Net

#: The tests compile the programs that they check.
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
FORMS: tuple[Form, ...] = get_args(Form)
ALL_NUMBERS: tuple[NumberFormat, ...] = get_args(NumberFormat)


def lenet_5() -> Model:
    return dcformat.load(ROOT / "models" / "lenet-5.dcf")


def one_line(seed: int = 0) -> Net:
    """A network of one spatial dimension: padding that differs at both ends, strides, and a pool that overlaps."""
    net = Net(3, 29, seed=seed)
    weight = net.random.standard_normal((6, 3, 5)).astype(np.float32)
    weight[net.random.random(weight.shape) < 0.5] = 0
    net.tensors = {"w": from_dense("w", weight), "b": from_dense("b", np.arange(6, dtype=np.float32) - 2)}
    value = net.add(Conv((0,), "w", "b", (2,), (1,), (3,), (1,)))
    value = net.add(ReLU((net.add(MaxPool((value,), (3,), (2,), (1,), (0,))),)))
    net.linear(net.add(Flatten((value,))), 4, 42)
    return net


def elementwise() -> Net:
    """Functions of elements, sums of two values and of constants, and normal softmax after other operators."""
    net = Net(7, 5, seed=3)
    gate = net.add(Unary((0,), "sigmoid"))
    value = net.add(Binary((net.add(Unary((0,), "tanh")), gate), "mul"))
    value = net.add(Add((value, 0.25)))
    value = net.add(Binary((net.add(Binary((value, -0.5), "maximum")), 0.75), "minimum"))
    value = net.add(Quantize((value,), 0.01, 3, -100, 100))
    value = net.add(Unary((net.add(Add((value, 0))),), "exp"))
    net.add(Softmax((value,)))
    return net


def moving() -> Net:
    """Operators that move elements."""
    net = Net(4, 6, 5, seed=4)
    value = net.add(Transpose((0,), (2, 0, 1)))
    value = net.add(Pad((value,), (0, 1, 2), (1, 0, 1), "constant", -1.5))
    value = net.add(Slice((value,), 2, 7, 4, -2))
    value = net.add(Concat((value, value), 1))
    value = net.add(Reshape((value,), (6, 40)))
    net.add(ReLU((value,)))
    return net


FLOAT_NETS: dict[str, Callable[[], Net]] = {
    **NETS, "one line": one_line, "elementwise": elementwise, "moving": moving,
}  # fmt: skip


@needs_c_compiler
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", FLOAT_NETS)
def test_float32_has_the_bits_of_the_deterministic_runtime(tmp_path: Path, name: str, form: Form) -> None:
    made = export_c(FLOAT_NETS[name]().model(), ExportOptions("float32", form, tests=8))
    assert made.error is None
    printed = run_tests(tmp_path, made.files, "-fsanitize=address,undefined", "-fno-sanitize-recover")
    assert printed == "checksum matches; 8 of 8 outputs are as expected\n"


@needs_c_compiler
@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("flags", [("-O0",), ("-O3",), ("-Os", "-std=gnu99", "-ffp-contract=fast")])
def test_any_compiler_and_optimisation_gives_the_same_bits(
    tmp_path: Path, compiler: str, flags: tuple[str, ...]
) -> None:
    made = export_c(NETS["residual"]().model(), ExportOptions(static_inputs=True))
    run_tests(tmp_path, made.files, *flags, compiler=compiler)


@needs_c_compiler
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("numbers", ["int8", "int16"])
@pytest.mark.parametrize("name", ["mlp", "sparse mlp", "lenet", "fire", "averaging", "one line"])
def test_fixed_point_has_the_integers_of_its_emulation(
    tmp_path: Path, name: str, numbers: NumberFormat, form: Form
) -> None:
    model = FLOAT_NETS[name]().model()
    assert model.graph is not None
    x = np.random.default_rng(2).standard_normal((200, *model.graph.input_shape), np.float32)
    made = export_c(model, ExportOptions(numbers, form, static_inputs=form == "tables", tests=20), x)
    run_tests(tmp_path, made.files, "-fsanitize=address,undefined", "-fno-sanitize-recover")
    assert made.error is not None
    assert made.error.inputs == 200
    assert made.error.same_argmax >= (0.9 if numbers == "int8" else 0.98)


@needs_c_compiler
def test_eight_bits_of_a_residual_network_with_softmax(tmp_path: Path) -> None:
    model = NETS["residual"]().model()
    x = np.random.default_rng(2).standard_normal((100, 3, 9, 9), np.float32)
    made = export_c(model, ExportOptions("int8", tests=20), x)
    run_tests(tmp_path, made.files)
    assert made.error is not None
    assert made.error.largest < 0.1


@needs_c_compiler
@pytest.mark.parametrize("form", FORMS)
def test_a_quantised_network_needs_no_calibration(tmp_path: Path, form: Form) -> None:
    made = export_c(quantised(), ExportOptions("int8", form, tests=20))
    run_tests(tmp_path, made.files)


def quantised(softmax: bool = True) -> Model:
    """An 8-bit network as TensorFlow Lite has them: a scale for each row of weights, and codes of all values."""
    random = np.random.default_rng(5)
    scales = random.random(6).astype(np.float32) / 64 + np.float32(0.001)
    weight = random.integers(-127, 128, (6, 2, 3, 3)).astype(np.float32) * scales[:, None, None, None]
    last = random.integers(-127, 128, (5, 96)).astype(np.float32) * np.float32(0.01)
    names = {"conv": weight, "conv_bias": random.standard_normal(6), "last": last}
    tensors = {name: from_dense(name, value.astype(np.float32)) for name, value in names.items()}
    nodes: tuple[Node, ...] = (
        Add((0, 3.0)), Binary((1, 0.05), "mul"), Conv((2,), "conv", "conv_bias", (2, 2), (0, 0), (1, 1)),
        Quantize((3,), 0.02, -128, -128, 127), Unary((4,), "tanh"), Quantize((5,), 1 / 128, 0, -128, 127),
        Flatten((6,)), Linear((7,), "last"), Quantize((8,), 0.1, 5, -128, 127),
    )  # fmt: skip
    if softmax:
        nodes = (*nodes, Softmax((9,)), Quantize((10,), 1 / 256, -128, -128, 127))
    graph = Graph.sequential((2, 8, 8), nodes)
    port = graph.inputs[0]
    return Model(tensors, Graph((type(port)(port.shape, dtype="int8"),), graph.nodes, graph.outputs))


@needs_c_compiler
def test_a_quantised_network_in_float32(tmp_path: Path) -> None:
    run_tests(tmp_path, export_c(quantised(softmax=False), ExportOptions("float32", tests=8)).files)


@needs_c_compiler
def test_rows_of_tiny_weights_with_large_biases(tmp_path: Path) -> None:
    random = np.random.default_rng(8)
    weight = random.standard_normal((6, 300)).astype(np.float32)
    weight[2] *= np.float32(1e-9)
    bias = np.array([0, 1, 30, -2, 0.5, 0], np.float32)
    tensors = {"w": from_dense("w", weight), "b": from_dense("b", bias)}
    nodes = (Linear((0,), "w", "b"), ReLU((1,)))
    x = random.random((50, 300)).astype(np.float32)
    made = export_c(Model(tensors, Graph.sequential((300,), nodes)), ExportOptions("int8", tests=20), x)
    run_tests(tmp_path, made.files, "-fsanitize=undefined")
    assert made.error is not None
    assert made.error.largest < 0.5


@needs_c_compiler
def test_quantised_values_are_within_a_step_of_the_runtime(tmp_path: Path) -> None:
    model = quantised(softmax=False)
    made = export_c(model, ExportOptions("int8"))
    x = np.random.default_rng(6).integers(-128, 128, (300, 2, 8, 8)).astype(np.int8)
    stored = (x.astype(np.int16) + 128).astype(np.uint8)
    found = run_on(tmp_path, made.files, stored, "u1").astype(np.float32) - 133
    expected = Session.from_model(model)({"input": x})["output"] / 0.1
    far = np.abs(found - expected)
    assert far.max() <= 1.01
    assert np.mean(far > 0.01) < 0.03


@needs_c_compiler
@pytest.mark.parametrize(
    ("name", "numbers", "correct"),
    [("lenet-5", "int8", 9920), ("lenet-300-100", "int8", 9860), ("lenet-300-100-extreme", "int16", 9580)],
)
def test_fixed_point_on_all_test_images(name: str, numbers: NumberFormat, correct: int, tmp_path: Path) -> None:
    model = dcformat.load(ROOT / "models" / f"{name}.dcf")
    made = export_c(model, ExportOptions(numbers), load_split("train", ROOT / "data/mnist").images[:1000])
    test = load_split("test", ROOT / "data/mnist")
    inputs: npt.NDArray[np.generic] = test.images  # 8-bit programs take pixels unchanged
    if numbers == "int16":
        scale = re.search(r"MODEL_INPUT_SCALE (\S+)", made.files["model.h"])
        assert scale is not None
        inputs = np.rint(test.images / (255 * float(scale[1]))).astype("<i2")
    found = run_on(tmp_path, made.files, inputs, "<i4").argmax(axis=1)
    assert np.count_nonzero(found != Session.from_model(model)(test.images).argmax(axis=1)) <= 10
    assert np.count_nonzero(found == test.labels) >= correct


def test_sizes_of_lenet_5() -> None:
    images = load_split("train", ROOT / "data/mnist").images[:50]
    sizes = {}
    for form in FORMS:
        made = export_c(lenet_5(), ExportOptions("int8", form, static_inputs=True), images)
        sizes[form] = len(made.data)
        assert made.arena_bytes == 2224
    assert sizes["small"] <= 2500
    assert sizes["fast"] <= 2680
    assert sizes["tables"] <= 4800


@pytest.mark.parametrize("target", TARGETS)
def test_sizes_and_emulated_runs(target: str) -> None:
    if absent := missing(target):
        pytest.skip(f"{absent} is not installed")
    images = load_split("train", ROOT / "data/mnist").images[:50]
    model = lenet_5()
    if target == "atmega328p":
        model = dcformat.load(ROOT / "models" / "lenet-300-100-extreme.dcf")
    made = export_c(model, ExportOptions("int8", static_inputs=True, tests=2), images)
    sizes = measure(made.files, target)
    assert sizes.flash <= (7168 if target.startswith("atmega") else 4992)
    assert sizes.ram + sizes.stack <= (2048 if target == "atmega328p" else 3072)
    if missing(target, emulator=True):
        return
    ran = emulate(made.files, target)
    assert (ran.failed, ran.checked) == (0, True)
    assert ran.length > 100_000


@pytest.mark.parametrize("target", ["cortex-m0", "atmega1284p"])
@pytest.mark.parametrize("name", ["residual", "averaging", "one line", "moving"])
def test_compilers_of_other_processors_give_no_warning(name: str, target: str) -> None:
    if absent := missing(target):
        pytest.skip(f"{absent} is not installed")
    assert measure(export_c(FLOAT_NETS[name]().model()).files, target).flash > 500


@pytest.mark.parametrize("target", ["cortex-m3", "cortex-m4"])
def test_float32_has_the_same_bits_on_cortex_m(target: str) -> None:
    if absent := missing(target, emulator=True):
        pytest.skip(f"{absent} is not installed")
    made = export_c(NETS["residual"]().model(), ExportOptions("float32", tests=3))
    assert emulate(made.files, target).failed == 0


@needs_c_compiler
def test_pixels_with_a_mean_and_a_deviation(tmp_path: Path) -> None:
    net = NETS["lenet"]()
    model = net.model(Preprocessing((0.13,), (0.31,)))
    pixels = np.random.default_rng(0).integers(0, 256, (40, 1, 12, 12)).astype(np.uint8)
    for numbers in ALL_NUMBERS:
        made = export_c(model, ExportOptions(numbers), pixels)
        run_tests(tmp_path, made.files)
    made = export_c(model, ExportOptions("int8"), pixels)
    # The stored integers of the input are the pixels.
    assert "#define MODEL_INPUT_ZERO 33\n" in made.files["model.h"]
    found = run_on(tmp_path, made.files, pixels, "<i4").argmax(axis=1)
    assert np.mean(found == Session.from_model(model)(pixels).argmax(axis=1)) >= 0.9


def alone(*nodes: Node) -> Model:
    """A network of few operators for inputs of 2 x 6 x 6, whose weights are c (3 x 2 x 3 x 3) and l (4 x 6)."""
    random = np.random.default_rng(11)
    shapes = {"c": (3, 2, 3, 3), "l": (4, 6)}
    tensors = {name: from_dense(name, random.standard_normal(shape, np.float32)) for name, shape in shapes.items()}
    return Model(tensors, Graph.sequential((2, 6, 6), nodes))


ALONE = {
    "linear": alone(Linear((0,), "l")),
    "conv": alone(Conv((0,), "c", None, (1, 1), (0, 0), (0, 0), (1, 1))),
    "padded conv": alone(Conv((0,), "c", None, (1, 1), (1, 1), (1, 1), (1, 1))),
    "add": alone(Add((0, 0))),
    "add, linear": alone(Add((0, 0)), Linear((1,), "l")),
    "pool": alone(MaxPool((0,), (2, 2), (2, 2), (0, 0), (0, 0))),
    "mean": alone(Reduce((0,), "mean", (1, 2))),
    "softmax": alone(Softmax((0,))),
    "tanh": alone(Unary((0,), "tanh")),
    "flatten": alone(Flatten((0,))),
}


@needs_c_compiler
@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("numbers", ["float32", "int8"])
@pytest.mark.parametrize("name", ALONE)
def test_a_program_has_no_function_that_it_does_not_call(
    tmp_path: Path, name: str, numbers: NumberFormat, compiler: str
) -> None:
    x = np.random.default_rng(2).standard_normal((20, 2, 6, 6), np.float32)
    for static in (False, True):
        made = export_c(ALONE[name], ExportOptions(numbers, static_inputs=static), None if numbers == "float32" else x)
        run_tests(tmp_path, made.files, compiler=compiler)


@needs_c_compiler
def test_a_network_that_only_renames_its_input(tmp_path: Path) -> None:
    made = export_c(Model({}, Graph.sequential((2, 3), (Flatten((0,)),))))
    run_tests(tmp_path, made.files)


@needs_c_compiler
@pytest.mark.parametrize("form", FORMS)
def test_weights_that_are_zero_constant_or_without_a_bias(tmp_path: Path, form: Form) -> None:
    tensors = {
        "zero": from_dense("zero", np.zeros((4, 6), np.float32)), "bias": from_dense("bias", np.ones(4, np.float32)),
        "same": from_dense("same", np.full((3, 4), 0.5, np.float32)),
    }  # fmt: skip
    nodes = (Linear((0,), "zero", "bias"), Linear((1,), "same"))
    model = Model(tensors, Graph.sequential((6,), nodes))
    run_tests(tmp_path, export_c(model, ExportOptions("float32", form)).files)
    x = np.ones((4, 6), np.float32)
    run_tests(tmp_path, export_c(model, ExportOptions("int8", form), x).files)


@needs_c_compiler
@pytest.mark.parametrize("form", FORMS)
def test_windows_leave_out_zeros_of_a_convolution_that_is_stored_whole(tmp_path: Path, form: Form) -> None:
    net = Net(2, 7, 6, seed=9)
    weight = net.random.standard_normal((3, 2, 3, 3)).astype(np.float32)
    weight[:, 1, :, 2] = weight[:, 0, 1] = 0
    weight[2, 0] = 0
    net.tensors = {"w": from_dense("w", weight)}
    net.add(Conv((0,), "w", None, (1, 1), (1, 0), (0, 1), (1, 1)))
    made = export_c(net.model(), ExportOptions("float32", form, tests=8))
    assert "#define ROW_ENTRIES 12\n" in made.files["model.c"]
    assert "checksum matches; 8 of 8" in run_tests(tmp_path, made.files, "-fsanitize=address,undefined")


def test_networks_that_cannot_be_exported() -> None:
    net = NETS["mlp"]()
    with pytest.raises(GraphError, match=r"range of node 0: expected some \(--calibrate\), or a quantised network"):
        export_c(net.model(Preprocessing((0.0,), (1.0,))), ExportOptions("int8"))
    with pytest.raises(GraphError, match="node 0: expected another function, found sin"):
        export_c(Model({}, Graph.sequential((4,), (Unary((0,), "sin"),))))
    with pytest.raises(GraphError, match="node 0: expected an operator that `export c` has, found norm"):
        export_c(Model({}, Graph.sequential((4,), (Normalize((0,), (0,), 0.1, True),))))
    factors = {"factors": from_dense("factors", np.ones((2, 1, 1), np.float32))}
    nodes = (Binary((0, "factors"), "mul"), AvgPool((1,), (2, 2), (2, 2)))
    mean = Model(factors, Graph.sequential((2, 4, 4), nodes))
    with pytest.raises(GraphError, match="no fixed order"):
        export_c(mean)
    inner = Model({}, Graph.sequential((2, 4), (Reduce((0,), "mean", (0,)),)))
    with pytest.raises(GraphError, match="last dimensions"):
        export_c(inner)


def test_a_network_beyond_the_limits_is_refused() -> None:
    model = NETS["lenet"]().model()
    with pytest.raises(MemoryLimitError):
        export_c(model, max_memory=1000)
    with pytest.raises(WorkLimitError):
        export_c(model, max_work=1000)
