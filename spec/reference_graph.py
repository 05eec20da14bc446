"""Sections 5 to 5.3 of `dcformat.md`, "Graph": inputs, outputs, operators and their attributes.

`reference_shapes.py` has section 5.4, the shapes of the values between them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from math import prod
from typing import Any

from reference_reader import Entry, Reader, check, finite_f32
from reference_shapes import MAX_ELEMENTS, MAX_RANK, result_shape

# Section 9, "Limits".
MAX_TENSORS = 1 << 16
MAX_OPERATORS = 1 << 16
MAX_OPERANDS = 64
MAX_PORTS = 256
MAX_ATTRIBUTE = 1 << 16
MAX_NAME = 255
# Sections 5.1 to 5.3: what a varint may be.
MAX_BACK = 1 << 17
MAX_OPERAND = 1 << 19
MAX_INTEGER = 1 << 17
MAX_DIMENSION = 6
MAX_DIMENSIONS = 127

LONG_INTERFACE = 8
DTYPES = ["float32", "float64", "float16", "int8", "uint8", "int16", "int32", "int64", "bool"]
NAMES = """Linear Conv ReLU MaxPool AvgPool Reduce Unary Flatten Add Concat Softmax Binary Where Quantize Normalize
    MatMul ConvTranspose LSTM GRU Reshape Transpose Slice Pad Tile Gather Resize Requantize"""
OPERATORS = dict(enumerate(NAMES.split(), 1))
#: Section 5.2: the operators with any number of operands, and the least number of those that need more than one.
ANY = ("Add", "Concat", "LSTM", "GRU")
LEAST = {"Add": 2, "Concat": 2, "Binary": 2, "Where": 3, "MatMul": 2, "Gather": 2, "Requantize": 2}
TAKE_CONSTANTS = ("Add", "Binary", "Where", "Requantize")
TAKE_TENSORS = (*TAKE_CONSTANTS, "Concat", "MatMul", "Gather")
WEIGHTS = {name: ["weight"] for name in ("Linear", "Conv", "ConvTranspose")}
WEIGHTS |= {name: ["weight", "recurrent_weight"] for name in ("LSTM", "GRU")}

#: Section 5.3: the words of attributes.
REDUCTIONS = ["mean", "max", "sum", "min", "prod", "argmax", "argmin"]
UNARY = ["neg", "abs", "sign", "floor", "ceil", "round", "sqrt", "exp", "log", "erf", "sigmoid", "tanh", "sin", "cos"]
BINARY = ["sub", "mul", "div", "pow", "minimum", "maximum", "equal", "less", "less_equal"]
PAD_MODES = ["constant", "edge", "reflect"]
RESIZE_MODES = ["nearest", "linear"]
COORDINATES = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]
ROUNDINGS = ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]


#: Section 5.2: the dtypes of the tensors that operators use.
NETWORK_DTYPES = ("float32", "float16", "bfloat16", "int8")


class Attributes:
    """Section 5.3, "Attributes": reads the attributes of one operator."""

    def __init__(self, reader: Reader, tensors: list[Entry], count: int) -> None:
        self.reader = reader
        self.tensors = tensors
        #: The length of the last list; of a convolution, at first its number of spatial dimensions.
        self.count = count

    def number(self) -> int:
        """Coding "count"."""
        return self.reader.varint(MAX_ATTRIBUTE)

    def size(self) -> int:
        """Coding "size"."""
        return self.reader.varint(MAX_ELEMENTS)

    def dimension(self) -> int:
        """Coding "dimension"."""
        return self.reader.varint(MAX_DIMENSION)

    def dimensions(self) -> list[int]:
        """Coding "dimensions"."""
        mask = self.reader.varint(MAX_DIMENSIONS)
        return [i for i in range(mask.bit_length()) if mask >> i & 1]

    def integer(self) -> int:
        """Coding "integer"."""
        number = self.reader.varint(MAX_INTEGER)
        return -(number // 2) - 1 if number % 2 else number // 2

    def real(self) -> str:
        """Coding "real", as hexadecimal digits."""
        return real(self.reader)

    def truth(self) -> bool:
        """Coding "truth"."""
        return bool(self.word([False, True]))

    def word(self, words: list[Any]) -> Any:
        """Coding "word"."""
        place = self.reader.varint(MAX_ATTRIBUTE)
        check(place < len(words), "E08", "[G2] an unknown word")
        return words[place]

    def optional_dimension(self) -> int | None:
        """Coding "optional dimension"."""
        number = self.reader.varint(MAX_DIMENSION)
        return number - 1 if number else None

    def optional_tensor(self) -> str | None:
        """Coding "optional tensor"."""
        number = self.reader.varint(MAX_TENSORS)
        return tensor_name(self.tensors, number - 1) if number else None

    def each(self, item: Callable[[], Any]) -> list[Any]:
        """Coding "each ..."."""
        return [item() for _ in range(self.count)]

    def several(self, item: Callable[[], Any]) -> list[Any]:
        """Coding "list of ..."."""
        self.count = self.reader.varint(MAX_RANK)
        return self.each(item)

    def of(self, name: str) -> dict[str, Any]:
        """Read all attributes of an operator, in the order of the table."""
        return {field: read() for field, read in self.table(name)}

    def table(self, name: str) -> list[tuple[str, Callable[[], Any]]]:
        """Section 5.3: the attributes of an operator, and how each is read."""

        def word(words: list[str]) -> Callable[[], str]:
            return lambda: str(self.word(words))

        def each(item: Callable[[], Any]) -> Callable[[], list[Any]]:
            return lambda: self.each(item)

        def several(item: Callable[[], Any]) -> Callable[[], list[Any]]:
            return lambda: self.several(item)

        counts, sizes = each(self.number), each(self.size)
        around = [("stride", counts), ("padding", counts), ("padding_end", counts)]
        pool = [("kernel", several(self.number)), *around, ("ceil_mode", self.truth)]
        recurrent = [("recurrent_bias", self.optional_tensor), ("reverse", self.truth)]
        found: dict[str, list[tuple[str, Callable[[], Any]]]] = {
            "Conv": [*around, ("dilation", counts), ("groups", self.number)],
            "ConvTranspose": [*around, ("dilation", counts), ("output_padding", counts), ("groups", self.number)],
            "MaxPool": pool,
            "AvgPool": [*pool, ("count_include_pad", self.truth)],
            "Reduce": [("function", word(REDUCTIONS)), ("axes", self.dimensions), ("keepdims", self.truth)],
            "Unary": [("function", word(UNARY))],
            "Concat": [("axis", self.dimension)],
            "Softmax": [("axis", self.optional_dimension)],
            "Binary": [("function", word(BINARY))],
            "Quantize": [(part, self.real if part == "scale" else self.integer) for part in QUANTIZE],
            "Normalize": [("axes", self.dimensions), ("epsilon", self.real), ("centered", self.truth)],
            "LSTM": recurrent,
            "GRU": [*recurrent, ("reset_after", self.truth)],
            "Reshape": [("shape", several(self.size))],
            "Transpose": [("order", several(self.dimension))],
            "Slice": [("axis", self.dimension), ("start", self.size), ("size", self.size), ("step", self.integer)],
            "Pad": [("before", several(self.size)), ("after", sizes), ("mode", word(PAD_MODES)), ("value", self.real)],
            "Tile": [("repeats", several(self.number))],
            "Gather": [("axis", self.dimension)],
            "Resize": [
                ("size", several(self.size)), ("scale", each(self.real)), ("mode", word(RESIZE_MODES)),
                ("coordinates", word(COORDINATES)), ("rounding", word(ROUNDINGS)),
            ],
            "Requantize": [(part, self.real if "scale" in part else self.integer) for part in REQUANTIZE],
        }  # fmt: skip
        return found.get(name, [])


QUANTIZE = ("scale", "zero_point", "low", "high")
REQUANTIZE = ("input_scale", "output_scale", "low", "high")


def defaults(name: str, spatial: int) -> dict[str, Any] | None:
    """Section 5.3: the defaults of an operator's attributes, or None if they have none."""
    ones, zeros, two = [1] * spatial, [0] * spatial, [2, 2]
    conv = {"stride": ones, "padding": zeros, "padding_end": zeros, "dilation": ones}
    pool = {"kernel": two, "stride": two, "padding": [0, 0], "padding_end": [0, 0], "ceil_mode": False}
    recurrent = {"recurrent_bias": None, "reverse": False}
    found: dict[str, dict[str, Any]] = {
        "Conv": {**conv, "groups": 1},
        "ConvTranspose": {**conv, "output_padding": zeros, "groups": 1},
        "MaxPool": pool,
        "AvgPool": {**pool, "count_include_pad": True},
        "Reduce": {"function": "mean", "axes": [1, 2], "keepdims": False},
        "Concat": {"axis": 0},
        "Softmax": {"axis": None},
        "LSTM": recurrent,
        "GRU": {**recurrent, "reset_after": True},
        "Gather": {"axis": 0},
    }
    return found.get(name)


def real(reader: Reader) -> str:
    """Section 5.2: a binary32 that is not NaN, as hexadecimal digits."""
    bits = reader.uint(4)
    check(bits & 0x7FFFFFFF <= 0x7F800000, "E08", "[G12] not a number")
    return f"{bits:08x}"


def tensor_name(entries: list[Entry], number: int) -> str:
    """Return the name of a tensor of the table."""
    check(number < len(entries), "E11", "[G4] a tensor that is not there")
    check(entries[number].dtype in NETWORK_DTYPES, "E11", "[G13] a tensor of this dtype")
    return entries[number].name


def earlier(values: int, back: int) -> int:
    """Section 5: the number of the value that is `back` values back from the last of `values`."""
    check(back < values, "E11", "[G4] a value that is not there yet")
    return values - 1 - back


def read_graph(reader: Reader, entries: list[Entry]) -> dict[str, Any]:
    """Section 5, "Graph", with the shape of each value."""
    head = reader.u8()
    check(head <= LONG_INTERFACE, "E08", "[G1] an unknown interface")
    graph: dict[str, Any] = {}
    if head == LONG_INTERFACE:
        graph["inputs"] = [read_port(reader, None) for _ in range(reader.varint(MAX_PORTS))]
    else:
        graph["inputs"] = [short("input", shape=read_shape(reader, head))]
    values = [port["shape"] for port in graph["inputs"]]
    for shape in values:
        check(0 not in shape and prod(shape) <= MAX_ELEMENTS, "E09", "[G6] shape of an input")
    graph |= read_preprocessing(reader, graph["inputs"])
    graph["operators"] = []
    tensors = {entry.name: list(entry.shape) for entry in entries}
    for _ in range(reader.varint(MAX_OPERATORS)):
        operator = read_operator(reader, len(values), entries)
        graph["operators"].append(operator)
        values.append(result_shape(operator, values, tensors))
        check(prod(values[-1]) <= MAX_ELEMENTS, "E09", "[G6] a value with too many elements")
    graph["shapes"] = values
    usual = [short("output", value=len(values) - 1)]
    if head == LONG_INTERFACE:
        graph["outputs"] = [read_port(reader, len(values)) for _ in range(reader.varint(MAX_PORTS))]
        inputs = graph["inputs"]
        is_short = [{**port, "shape": []} for port in inputs] == [short("input", shape=[])]
        check(not is_short or graph["outputs"] != usual, "E08", "[G3] the short interface spelled out")
    else:
        graph["outputs"] = usual
    check_ports(graph["inputs"], graph["outputs"], values)
    return graph


def short(name: str, **more: Any) -> dict[str, Any]:
    """Section 5: the input or output of the short interface."""
    return {"name": name, "dtype": "float32", "batch_axis": 0, **more}


def read_shape(reader: Reader, rank: int) -> list[int]:
    """Section 5: the dimensions of an input."""
    return [reader.varint(MAX_ELEMENTS) for _ in range(rank)]


def read_port(reader: Reader, values: int | None) -> dict[str, Any]:
    """Section 5.1: an input or, if the number of values is given, an output."""
    name = reader.text(MAX_NAME)
    check(name != "", "E08", "[G2] an empty name")
    kind = reader.u8()
    dtype, axis = kind & 15, kind >> 4
    check(dtype < len(DTYPES) and axis <= MAX_RANK + 1, "E08", "[G2] an unknown dtype or batch axis")
    port = {"name": name, "dtype": DTYPES[dtype], "batch_axis": axis - 1 if axis else None}
    if values is not None:
        return {**port, "value": earlier(values, reader.varint(MAX_BACK))}
    rank = reader.u8()
    check(rank <= MAX_RANK, "E08", "[G2] rank of an input")
    return {**port, "shape": read_shape(reader, rank)}


def check_ports(inputs: list[dict[str, Any]], outputs: list[dict[str, Any]], values: list[list[int]]) -> None:
    """Section 5.1, requirement [G11]."""
    batches = any(port["batch_axis"] is not None for port in inputs)
    for ports in (inputs, outputs):
        check(ports != [], "E11", "[G11] no input or output")
        check(len({port["name"] for port in ports}) == len(ports), "E11", "[G11] a name twice")
        for port in ports:
            rank = len(port["shape"] if "shape" in port else values[port["value"]])
            axis = port["batch_axis"]
            check(axis is None or axis <= rank, "E11", "[G11] a batch axis beyond the rank")
            check("shape" in port or (axis is not None) == batches, "E11", "[G11] an output without its batch")


def read_preprocessing(reader: Reader, inputs: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Section 5: means and standard deviations."""
    count = reader.varint(MAX_ATTRIBUTE)
    if not count:
        return {"mean": [], "std": []}
    raw = reader.take(8 * count)
    check(len(inputs) == 1 and inputs[0]["dtype"] == "float32", "E11", "[G7] preprocessing of other inputs")
    shape = inputs[0]["shape"]
    check(count == 1 or (len(shape) == 3 and count == shape[0]), "E09", "[G7] preprocessing of so many channels")
    numbers = list(struct.unpack(f"<{2 * count}f", raw))
    means, deviations = split_f32(raw[: 4 * count]), split_f32(raw[4 * count :])
    equal = len(set(means)) == len(set(deviations)) == 1
    check(count == 1 or not equal, "E08", "[G9] equal preprocessing of all channels")
    good = all(map(finite_f32, split_f32(raw))) and 0 not in numbers[count:]
    check(good, "E11", "[G7] preprocessing that is not finite or divides by zero")
    return {"mean": numbers[:count], "std": numbers[count:]}


def split_f32(raw: bytes) -> list[bytes]:
    """Section 1: the bytes of each of several binary32 numbers."""
    return [raw[i : i + 4] for i in range(0, len(raw), 4)]


def read_operator(reader: Reader, values: int, entries: list[Entry]) -> dict[str, Any]:
    """Section 5.2: an operator before which there are `values` values."""
    head = reader.u8()
    check(head & 31 in OPERATORS, "E08", "[G2] an unknown operator")
    name = OPERATORS[head & 31]
    operands: list[Any] = []
    if not head & 32:
        operands = [earlier(values, 0)]
    else:
        count = reader.varint(MAX_OPERANDS) if name in ANY else LEAST.get(name, 1)
        operands = [read_operand(reader, name, values, entries) for _ in range(count)]
        check(operands != [values - 1], "E08", "[G3] the default operand spelled out")
    check(name not in LEAST or len(operands) >= LEAST[name], "E11", "[G5] too few operands")
    check(any(isinstance(operand, int) for operand in operands), "E11", "[G5] no value among the operands")
    operator: dict[str, Any] = {"operator": name, "operands": operands}
    check(name in WEIGHTS or not head & 64, "E08", "[G2] a bias of an operator without weights")
    for part in [*WEIGHTS.get(name, []), *(["bias"] if head & 64 else [])]:
        operator[part] = tensor_name(entries, reader.varint(MAX_TENSORS))
    spatial = 0
    if name in ("Conv", "ConvTranspose"):
        shapes = {entry.name: entry.shape for entry in entries}
        spatial = len(shapes[operator["weight"]]) - 2
        check(spatial in (1, 2), "E09", "[G6] rank of a convolution's weight")
    attributes = Attributes(reader, entries, spatial)
    usual = defaults(name, spatial) if attributes.table(name) else {}
    if head & 128:
        found = attributes.of(name)
        check(found != usual, "E08", "[G2] no attributes to spell out, or [G3] the default ones")
        usual = found
    check(usual is not None, "E08", "[G2] no attributes of an operator that needs them")
    return {**operator, "attributes": usual} if usual else operator


def read_operand(reader: Reader, name: str, values: int, entries: list[Entry]) -> Any:
    """Section 5.2: the number of a value, or a tensor or constant."""
    if name not in TAKE_TENSORS:
        return earlier(values, reader.varint(MAX_BACK))
    number, kind = divmod(reader.varint(MAX_OPERAND), 4)
    if kind == 0:
        return earlier(values, number)
    if kind == 1:
        return {"tensor": tensor_name(entries, number)}
    check(kind == 2 and number == 0, "E08", "[G2] an unknown kind of operand")
    constant = {"constant": real(reader)}
    check(name in TAKE_CONSTANTS, "E11", "[G5] a constant where none is taken")
    return constant
