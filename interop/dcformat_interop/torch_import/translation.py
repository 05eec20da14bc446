"""Translates `torch.export` programs to ONNX with PyTorch's own exporter."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

from dcformat_interop.refusals import UnfitError
from dcformat_interop.torch_import.function_table import kept_table

#: The operator that PyTorch's exporter has no function for, in its error.
_MISSING = re.compile(r"No ONNX function found for <OpOverload\(op='(\w+)\.(\w+)', overload='(\w+)'\)>")

#: The domain of the nodes that stand for such operators.
_DOMAIN = "torch"


def translated(path: str, program: Any) -> Any:
    """Return the ModelProto of a `torch.export.ExportedProgram`.

    An operator without a counterpart in ONNX becomes a node of the domain ``torch``, so that the importer names it with
    all others that it cannot import.

    Raises
    ------
    UnfitError
        PyTorch's exporter fails.
    ImportError
        onnxscript, which the exporter needs, is not installed.
    """
    import torch

    aten = torch.ops.aten
    # PyTorch's exporter splits into sequences, which a graph does not have.
    ours: dict[Any, Callable[..., Any]] = {aten.split.Tensor: _split, aten.split_with_sizes.default: _split}
    while True:
        try:
            with quiet(), kept_table():
                made = torch.onnx.export(
                    program, dynamo=True, optimize=False, verbose=False, custom_translation_table=dict(ours)
                )
            assert made is not None
            return made.model_proto
        except ImportError:
            raise
        except Exception as error:  # the exporter raises errors of many classes
            operator = _missing(error)
            if operator is None or operator in ours:
                raise UnfitError(path, "a program that torch.onnx can export", _reason(error)) from error
            ours[operator] = _stub(operator)


def output_names(program: Any) -> list[str]:
    """Return names for a program's outputs: the keys of dicts, and the places in tuples and lists."""
    from torch.utils import _pytree as pytree

    leaves = list(range(program.call_spec.out_spec.num_leaves))
    tree = pytree.tree_unflatten(leaves, program.call_spec.out_spec)
    paths, _ = pytree.tree_flatten_with_path(tree)
    kinds = [spec.arg for spec in program.graph_signature.output_specs if spec.kind.name == "USER_OUTPUT"]
    return [_joined(path) for (path, _), kind in zip(paths, kinds, strict=True) if hasattr(kind, "name")]


def _joined(path: Sequence[Any]) -> str:
    parts = [str(getattr(part, "key", getattr(part, "idx", getattr(part, "name", "")))) for part in path]
    return ".".join(parts if parts and not parts[0].isdigit() else ["output", *parts])


@contextmanager
def quiet() -> Iterator[None]:
    """Keep PyTorch's exporters from printing, logging and warning; their errors say enough."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _missing(error: BaseException | None) -> Any:
    """Return the operator without a counterpart in ONNX that an error is about, or None."""
    import torch

    while error is not None:
        found = _MISSING.search(str(error))
        if found is not None:
            return getattr(getattr(getattr(torch.ops, found[1]), found[2]), found[3])
        error = error.__cause__
    return None


def _split(x: Any, sizes: Any, dim: int = 0) -> list[Any]:
    """Return the parts of a value along a dimension as slices; `sizes` has that of each part, or is that of all."""
    from onnxscript import opset18 as op

    length = int(x.shape[dim])
    many = [sizes] * -(-length // sizes) if isinstance(sizes, int) else list(sizes)
    ends = [min(sum(many[: number + 1]), length) for number in range(len(many))]
    return [op.Slice(x, [start], [end], [dim]) for start, end in zip([0, *ends], ends, strict=False)]


def _stub(operator: Any) -> Callable[..., Any]:
    """Return a translation of an operator to a node that has its name and reads nothing."""
    from onnx import defs
    from onnxscript import values

    outputs = [
        defs.OpSchema.FormalParameter(f"output_{number}", "tensor(float)")
        for number, _ in enumerate(operator._schema.returns)
    ]
    name = operator.name().replace("::", ".")
    node = values.Op(values.Opset(_DOMAIN, 1), name, defs.OpSchema(name, _DOMAIN, 1, outputs=outputs))
    return lambda *args, **named: node()


def _reason(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
