"""Goes through a file's operators and lowers each of them into a graph builder."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from dcformat.errors import FormatError
from dcformat.graph import Quantize, ReLU
from dcformat_interop.graph_builder import GraphBuilder, Value
from dcformat_interop.lowering.unsupported import Unsupported, UnsupportedOperators
from dcformat_interop.refusals import UnfitError
from dcformat_interop.tensors import Budget
from dcformat_interop.tflite_import.calls import LOWERINGS, Registered, TfliteCall, as_item
from dcformat_interop.tflite_import.constant_tensors import constant
from dcformat_interop.tflite_import.items import TfliteItem, of_array, of_value, settled
from dcformat_interop.tflite_import.loading import OperatorInfo, TfliteFile, TfliteTensor
from dcformat_interop.tflite_import.names import layer_names
from dcformat_interop.tflite_import.quantization import RANGES, Quantization
from dcformat_interop.tflite_import.schema import ACTIVATIONS

#: The bounds of the activations that clip numbers.
_BOUNDS: dict[str, tuple[float, float | None]] = {"RELU": (0.0, None), "RELU_N1_TO_1": (-1.0, 1.0), "RELU6": (0.0, 6.0)}

_OTHERWISE = "convert the network without it, and compute the rest from the outputs"
_WAYS = dict.fromkeys(
    ("IF", "WHILE", "CALL_ONCE", "VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"),
    "convert the network without control flow and states",
)


class TfliteEvaluator:
    """Lowers operators one after the other; `items` has the meaning of each tensor that is known so far.

    An item is None if it comes from an operator that cannot be imported.
    """

    def __init__(self, file: TfliteFile, builder: GraphBuilder, budget: Budget) -> None:
        self._file, self._builder, self._budget = file, builder, budget
        self.items: dict[int, TfliteItem | None] = {}
        self.unsupported = UnsupportedOperators(file.path, _WAYS, _OTHERWISE)
        self._names = layer_names({info.number: info.name for info in file.tensors if info.data is not None})

    def input(self, number: int, value: Value) -> None:
        """Note that a value is an input of the network; integers that stand for numbers are converted."""
        info = self._file.tensors[number]
        if info.quantization is not None:
            scale, zero_point, _, _ = self._activation(info, info.quantization)
            b = self._builder
            value = b.binary("mul", b.add(value, float(-zero_point)) if zero_point else value, scale)
        self.items[number] = replace(of_value(value), fits=info.quantization)

    def output(self, number: int) -> TfliteItem:
        """Return a result of the network in the file's form: as integers, if it is quantised."""
        info, item = self._file.tensors[number], self._item(number, "outputs")
        assert item is not None
        if 0 in item.shape:
            raise UnfitError(self._file.path, "an output with elements", f"shape {item.shape}", info.what)
        if item.array is not None:
            item = of_value(self._builder.materialize(item.array, info.name or "constant"))
        item = settled(self._builder, item)
        if info.quantization is None:
            return item
        assert item.value is not None
        scale, zero_point, low, high = self._activation(info, info.quantization)
        b, real = self._builder, item.value
        if not info.quantization.same(item.fits):
            real = b.emit(Quantize, (real,), scale=scale, zero_point=zero_point, low=low, high=high)
        # The quotient is within a millionth of a whole number.
        whole = b.unary("round", b.binary("div", real, scale))
        return of_value(b.add(whole, float(zero_point)) if zero_point else whole, item.axes)

    def run(self) -> None:
        """Lower all operators."""
        for info in self._file.operators:
            try:
                self._operator(info)
            except Unsupported as reason:
                self.unsupported.add(info.op_type, _place(self._file, info), str(reason))
                self.items.update(dict.fromkeys(info.outputs))
            except UnfitError:
                raise
            except (FormatError, ValueError, TypeError, IndexError, OverflowError, ZeroDivisionError) as error:
                raise UnfitError(self._file.path, "inputs and options that fit", _reason(error), info.what) from error

    def _operator(self, info: OperatorInfo) -> None:
        registered = LOWERINGS.get(info.op_type)
        if registered is None:
            raise Unsupported("")
        items = [None if number < 0 else self._item(number, info.what) for number in info.inputs]
        if any(item is None and number >= 0 for item, number in zip(items, info.inputs, strict=True)):
            self.items.update(dict.fromkeys(info.outputs))
            return
        tensors = [None if number < 0 else self._file.tensors[number] for number in info.inputs]
        results = [self._file.tensors[number] for number in info.outputs]
        call = TfliteCall(info, items, tensors, results, self._builder, self._budget)
        made = registered.function(call)
        many = made if isinstance(made, list) else [made]
        if len(many) < len(results):
            raise ValueError(f"outputs: expected {len(many)}, found {len(results)}")
        for number, result in zip(info.outputs, many, strict=False):
            if number in self.items:
                raise ValueError(f"outputs: expected tensors that nothing else makes, found tensor {number}")
            item = as_item(result)
            if prod(item.shape) < 1 and item.array is None:
                raise Unsupported("with an empty result")
            self.items[number] = self._finished(call, self._file.tensors[number], item, registered)

    def _item(self, number: int, what: str) -> TfliteItem | None:
        """Return the item of a tensor; a constant is loaded the first time."""
        if number not in self.items:
            info = self._file.tensors[number]
            array = constant(self._file.path, info, self._budget)
            if array is None:
                raise UnfitError(self._file.path, f"an operator before it that makes {info.what}", "none", what)
            if info.quantization is not None:
                self._builder.note_steps(array, info.quantization.scales)
            name = self._names.get(number, "")
            self.items[number] = replace(of_array(array, name), fits=info.quantization)
        return self.items[number]

    def _finished(self, call: TfliteCall, info: TfliteTensor, item: TfliteItem, registered: Registered) -> TfliteItem:
        """Apply the activation that an operator has beside its own function, and round to integers."""
        activation = call.options.get("activation", 0)
        if not 0 <= activation < len(ACTIVATIONS):
            raise ValueError(f"activation: expected 0 to {len(ACTIVATIONS) - 1}, found {activation}")
        name = ACTIVATIONS[activation]
        if name not in ("NONE", *_BOUNDS):
            raise Unsupported(f"with activation {name}")
        if item.array is not None:
            if name != "NONE" or not (registered.moves_only or info.quantization is None):
                item = of_value(self._builder.materialize(item.array, info.name))
            else:
                return item
        fits = self._fitted(call, info) if registered.moves_only and name == "NONE" else None
        if fits is not None:
            return TfliteItem(item.value, item.axes, item.shape, fits=fits)
        if name == "NONE" and info.quantization is None:
            return item
        item = settled(self._builder, item)
        assert item.value is not None
        if info.quantization is None:
            return of_value(self._activated(item.value, name), item.axes)
        return self._rounded(info, info.quantization, item, _BOUNDS.get(name, (None, None)))

    def _fitted(self, call: TfliteCall, info: TfliteTensor) -> Quantization | None:
        """Return the scale of a result that has the same as all operands from which it takes elements."""
        wanted = info.quantization
        scales = [
            item.fits for item, tensor in zip(call.items, call.tensors, strict=True)
            if item is not None and tensor is not None and (item.fits is not None or tensor.dtype == "float32")
        ]  # fmt: skip
        return wanted if wanted is not None and scales and all(wanted.same(fits) for fits in scales) else None

    def _activated(self, value: Value, name: str) -> Value:
        b, (low, high) = self._builder, _BOUNDS[name]
        value = b.emit(ReLU, (value,)) if low == 0 else b.binary("maximum", value, low)
        return value if high is None else b.binary("minimum", value, high)

    def _rounded(
        self,
        info: TfliteTensor,
        quantization: Quantization,
        item: TfliteItem,
        bounds: tuple[float | None, float | None],
    ) -> TfliteItem:
        """Round to the numbers that integers stand for, within the bounds of an activation."""
        scale, zero_point, low, high = self._activation(info, quantization)
        below, above = bounds
        if below is not None:
            low = min(max(low, zero_point + round(below / scale)), zero_point)
        if above is not None:
            high = max(min(high, zero_point + round(above / scale)), zero_point)
        assert item.value is not None
        made = self._builder.emit(Quantize, (item.value,), scale=scale, zero_point=zero_point, low=low, high=high)
        return TfliteItem(made, item.axes, item.shape, fits=quantization)

    def _activation(self, info: TfliteTensor, quantization: Quantization) -> tuple[float, int, int, int]:
        """Return the scale, zero point, and range of a tensor that is not constant."""
        if quantization.for_all is None or info.dtype not in RANGES:
            expected = f"one scale and {', '.join(RANGES)} for a tensor that the network computes"
            found = f"{len(quantization.scales)} scales and {info.dtype}"
            raise UnfitError(self._file.path, expected, found, info.what)
        return (*quantization.for_all, *RANGES[info.dtype])


def _place(file: TfliteFile, info: OperatorInfo) -> str:
    """Return the name of an operator's first result, by which users find it."""
    return file.tensors[info.outputs[0]].name if info.outputs else str(info.number)


def _reason(error: Exception) -> str:
    if isinstance(error, FormatError):
        return f"{error.field}: expected {error.expected}, found {error.got}"
    return str(error).partition("\n")[0] or type(error).__name__
