"""The ONNX model itself, run by onnxruntime, by onnx's reference evaluator, or in its original form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.graph import Shape
from dcformat_interop.graph_builder import TensorNames
from dcformat_interop.lowering.comparison import STEPS
from dcformat_interop.onnx_import.model_inputs import InputPlan
from dcformat_interop.refusals import UnfitError

Array = npt.NDArray[Any]

#: Numbers of dtypes in ONNX.
_FLOAT16, _BFLOAT16 = 10, 16

#: The way out for most operators of an ONNX file that cannot be imported.
_CUT = "cut the graph before it with onnx.utils.extract_model, and compute the rest from the outputs"

#: Maximum number of characters that a message shows of an engine's error.
_REASON = 160

#: From so many numbers in an item of an input, one of them hardly changes what the item is.
_MANY = 1000

#: A size of the batch that distinguishes its dimension from others.
_BATCH = 3


#: Takes the names of the outputs, and the inputs by name, and returns the outputs in that order.
Computation = Callable[[Sequence[str], Mapping[str, Array]], Sequence[Any]]


class OnnxEngine(NamedTuple):
    """An engine that runs a model.

    `run` does, and so does `plain`, by other kernels, if there are any. `advice`, in parentheses or empty, says what to
    do if the results differ.
    """

    run: Computation
    name: str
    advice: str = ""
    plain: Computation | None = None


class OnnxOrigin(NamedTuple):
    """Where an ONNX model comes from.

    Attributes
    ----------
    path : str
        The model, for errors.
    start : callable
        Returns an engine that runs the model, to check the imported network.
    folder : Path or None
        The folder of external data; None refuses such data.
    outputs : sequence of str
        Names of the outputs; those of the ONNX model if there are none.
    names : TensorNames
        Names that tensors keep, independent of those in the ONNX model.
    otherwise : str
        The remedy for an operator that cannot be imported, where no better one is known.
    one_input : str
        The setting that makes the network one for single inputs; if it is empty, the option of the command.
    """

    path: str
    start: Callable[[], OnnxEngine]
    folder: Path | None = None
    outputs: Sequence[str] = ()
    names: TensorNames = MappingProxyType({})
    otherwise: str = _CUT
    one_input: str = ""


def onnx_engine(content: Path | bytes, model: Any) -> OnnxEngine:
    """Return onnxruntime with a model, or onnx's own evaluator if it is missing or has no kernel for some operators."""
    advice = ""
    try:
        import onnxruntime
    except ImportError:
        advice = " (onnxruntime may run it: pip install onnxruntime)"
    else:
        given = content if isinstance(content, bytes) else str(content)

        @cache
        def session(level: str) -> Any:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4
            options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
            return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])

        def plain(names: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Any]:
            results: Sequence[Any] = session("ORT_DISABLE_ALL").run(names, inputs)
            return results

        try:
            run = session("ORT_ENABLE_ALL").run
        except Exception:  # onnxruntime raises errors of many classes
            pass
        else:
            return OnnxEngine(run, f"onnxruntime {onnxruntime.__version__}", plain=plain)
    import onnx
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(model if isinstance(content, bytes) else str(content))
    return OnnxEngine(evaluator.run, f"onnx.reference {onnx.__version__}", advice)


class OnnxSource:
    """An ONNX model to run.

    Parameters
    ----------
    origin : OnnxOrigin
    model : ModelProto
    plans : sequence of InputPlan
    fixed : mapping of str to ndarray
        Inputs that are constant.

    Attributes
    ----------
    path : str
    outputs : sequence of str
        The names of the outputs.
    engine : str
        The engine's name and version; empty before the first run.
    advice : str
        What to do if the results differ, in parentheses, or an empty string.
    has_half_precision : bool
        Whether the model computes with numbers of 16 bits.
    limits : dict of str to int
        For inputs by which elements are chosen, how many there are to choose from.
    """

    def __init__(self, origin: OnnxOrigin, model: Any, plans: Sequence[InputPlan], fixed: Mapping[str, Array]) -> None:
        self.path, self._origin, self._fixed = origin.path, origin, fixed
        self.plans = plans
        self.has_half_precision = _has_half_precision(model)
        # A reference to a part of the model would keep all of it in memory, its tensors too.
        self._declarations = [type(value).FromString(value.SerializeToString()) for value in model.graph.output]
        self.outputs = origin.outputs or [output.name for output in model.graph.output]
        self._run: Any = None
        self._plain: Any = None
        self.engine = self.advice = ""
        self.limits: dict[str, int] = {}

    @property
    def takes_any_batch(self) -> bool:
        """Whether the model leaves the size of the batch open."""
        return any(plan.symbol is not None for plan in self.plans)

    @property
    def one_input(self) -> str:
        """The setting that fixes the batch at 1."""
        return self._origin.one_input or f"--dim {self._symbol()}=1"

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs by name."""
        if self._run is None:
            self._run, self.engine, self.advice, self._plain = self._origin.start()
        try:
            results = self._run(self.outputs, {**inputs, **self._fixed})
        except Exception as error:  # engines raise errors of many classes
            reason = str(error).strip().partition("\n")[0][:_REASON]
            batch = self._batch(inputs)
            hint = f" (with a batch of {batch}; if it takes 1 only, give {self.one_input})" if batch > 1 else ""
            raise UnfitError(self.path, f"a model that {self.engine} runs", f"{reason}{hint}{self.advice}") from error
        return {name: np.asarray(result) for name, result in zip(self.outputs, results, strict=True)}

    def run_plainly(self, inputs: Mapping[str, Array]) -> dict[str, Array] | None:
        """Return the outputs by other kernels of the engine; None if it has none, or they do not run the model."""
        if self._plain is None:
            return None
        try:
            results = self._plain(self.outputs, {**inputs, **self._fixed})
        except Exception:  # onnxruntime raises errors of many classes
            return None
        return {name: np.asarray(result) for name, result in zip(self.outputs, results, strict=True)}

    def _batch(self, inputs: Mapping[str, Array]) -> int:
        """Return the size of the batch that inputs have, 1 if the model does not leave it open."""
        for plan in self.plans:
            if plan.symbol is not None and plan.batch_axis is not None:
                return int(inputs[plan.name].shape[plan.batch_axis])
        return 1

    def random_inputs(self, batch: int, positive: bool = False, seed: int = 0) -> dict[str, Array]:
        """Return inputs for a batch: normal numbers, or their magnitudes; whole numbers below `limits`; truth values.

        Without a limit, whole numbers are below 128, and those of a mask are 0 and 1.
        """
        random = np.random.default_rng((batch, seed))
        out: dict[str, Array] = {}
        for plan in self.plans:
            shape = [batch if axis == plan.batch_axis else size for axis, size in enumerate(plan.shape)]
            if np.dtype(plan.dtype).kind == "f":
                numbers = random.standard_normal(shape)
                out[plan.name] = (np.abs(numbers) if positive else numbers).astype(plan.dtype)
            else:
                default = 2 if plan.dtype == "bool" or "mask" in plan.name.lower() else 128
                out[plan.name] = random.integers(0, self.limits.get(plan.name, default), shape).astype(plan.dtype)
        return out

    def moved_by_a_step(self, inputs: Mapping[str, Array]) -> dict[str, Array] | None:
        """Return the inputs with one of the many numbers of each item moved by about a step of 8 bits.

        None if no input has many numbers: one of a few may change everything.
        """
        for plan in self.plans:
            numbers = inputs[plan.name]
            middle = tuple(slice(None) if axis == plan.batch_axis else n // 2 for axis, n in enumerate(numbers.shape))
            if numbers.dtype.kind == "f" and numbers.size >= _MANY * numbers[middle].size:
                moved = numbers.copy()
                moved[middle] += np.abs(numbers).max() / STEPS
                return {**inputs, plan.name: moved}
        return None

    def batch_axes(self, shapes: Sequence[Shape]) -> list[int | None]:
        """Return which dimension of each output is the batch; `shapes` are those for a batch of 1.

        Raises
        ------
        UnfitError
            An output has no such dimension.
        """
        symbols = {plan.symbol for plan in self.plans if plan.symbol}
        declared = [_declared(output, symbols) for output in self._declarations]
        if None in declared:
            results = self(self.random_inputs(_BATCH))
            declared = [_grown(results[name].shape, shape) for name, shape in zip(self.outputs, shapes, strict=True)]
        for name, axis, shape in zip(self.outputs, declared, shapes, strict=True):
            if axis is None or axis >= len(shape) or shape[axis] != 1:
                expected = f"a dimension that grows with the batch (or a fixed batch: {self.one_input})"
                raise UnfitError(self.path, expected, f"shape {shape} for one input", f"output {name!r}")
        return declared

    def _symbol(self) -> str:
        return next(plan.symbol or f"{plan.name}.{plan.batch_axis}" for plan in self.plans if plan.symbol is not None)


def _has_half_precision(model: Any) -> bool:
    half, graph = (_FLOAT16, _BFLOAT16), model.graph
    typed = [value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)]
    stored = {tensor.name for tensor in graph.initializer if tensor.data_type in half}
    # Weights that are only stored as such become float32 before anything computes with them.
    read = any(node.op_type != "Cast" and not stored.isdisjoint(node.input) for node in graph.node)
    return read or any(t in half for t in typed)


def _declared(output: Any, symbols: set[str]) -> int | None:
    """Return the only dimension of an output that has the name of the batch."""
    places = [axis for axis, dim in enumerate(output.type.tensor_type.shape.dim) if dim.dim_param in symbols]
    return places[0] if len(places) == 1 else None


def _grown(large: Shape, small: Shape) -> int | None:
    if len(large) != len(small):
        return None
    places = [axis for axis, (many, one) in enumerate(zip(large, small, strict=True)) if many != one]
    return places[0] if len(places) == 1 and large[places[0]] == _BATCH * small[places[0]] else None
