"""Imports `torch.export` programs, through ONNX."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.layout import DEFAULT_MAX_MEMORY
from dcformat.model import Model
from dcformat_interop.graph_builder import TensorKey, TensorNames, tensor_key
from dcformat_interop.onnx_import.reading import OnnxImport, import_proto
from dcformat_interop.onnx_import.source_model import OnnxEngine, OnnxOrigin
from dcformat_interop.refusals import UnfitError
from dcformat_interop.torch_import.archive import load_program
from dcformat_interop.torch_import.translation import output_names, quiet, translated

Array = npt.NDArray[Any]

#: The way out for an operator that cannot be imported.
_OTHERWISE = "replace it in the forward pass, or export a part of the network without it"

#: The advice if results differ: PyTorch's exporter to ONNX has lost something, such as the divisor of an average pool.
_ADVICE = " (torch.onnx.export has lost something of the program: export its parts to find out what)"


def read_pt2(
    source: str | os.PathLike[str],
    *,
    dims: Mapping[str, int] | None = None,
    values: Mapping[str, npt.ArrayLike] | None = None,
    single: bool = False,
    exact: bool = False,
    max_memory: int | None = DEFAULT_MAX_MEMORY,
) -> Model:
    """Read a network from a ``.pt2`` archive. The parameters and errors are those of `import_pt2`."""
    return import_pt2(source, dims=dims, values=values, single=single, exact=exact, max_memory=max_memory).model


def import_pt2(
    source: str | os.PathLike[str],
    *,
    dims: Mapping[str, int] | None = None,
    values: Mapping[str, npt.ArrayLike] | None = None,
    single: bool = False,
    exact: bool = False,
    max_memory: int | None = DEFAULT_MAX_MEMORY,
) -> OnnxImport:
    """Read a network from an archive that `torch.export.save` wrote, with the means to check it.

    PyTorch loads a copy of the archive, which was checked to hold nothing but a graph of PyTorch's own operators.

    Parameters
    ----------
    source : path
    dims : mapping of str to int, optional
        Sizes of dimensions that the program leaves open, by their names, or as ``INPUT.AXIS``.
    values : mapping of str to array_like, optional
        Inputs that become constant.
    single : bool
        Whether float64 constants that float32 cannot hold are rounded to it; otherwise they are refused.
    exact : bool
        Whether to keep the sign of negative zeros in tensors.
    max_memory : int or None
        Maximum number of bytes of the tensors and folded constants; None for no limit.

    Raises
    ------
    UnsupportedOperatorsError
        Some operators cannot be imported. The message names all of them.
    UnfitError
        The file is not such an archive, is damaged, or holds data that could run code; dimensions other than the batch
        are open.
    ImportError
        PyTorch, onnx or onnxscript is not installed.
    OSError
        The file cannot be read.
    """
    path = Path(source)
    program = load_program(path, max_memory)
    return import_program(
        program, str(path), dims=dims, values=values, single=single, exact=exact, max_memory=max_memory
    )


def import_program(
    program: Any,
    path: str = "program",
    *,
    run: Callable[[Sequence[Any]], Any] | None = None,
    dims: Mapping[str, int] | None = None,
    values: Mapping[str, npt.ArrayLike] | None = None,
    single: bool = False,
    one_input: str = "",
    exact: bool = False,
    max_memory: int | None = DEFAULT_MAX_MEMORY,
) -> OnnxImport:
    """Read a network from a `torch.export.ExportedProgram`, with the means to check it.

    Parameters
    ----------
    program : ExportedProgram
    path : str
        The name of the program in errors.
    run : callable, optional
        The function that the network must agree with: it takes the input tensors in order, and returns the nested
        results. By default, the program itself.
    dims, values, single, exact, max_memory
        As for `import_pt2`.
    one_input : str
        The advice in errors for a program that takes single inputs only.

    Raises
    ------
    UnsupportedOperatorsError, UnfitError, ImportError
        As for `import_pt2`.
    """
    _check_real(path, program)
    proto = translated(path, program)
    inputs = [value.name for value in proto.graph.input]
    origin = OnnxOrigin(
        path,
        lambda: _engine(_run_of(program) if run is None else run, inputs),
        outputs=output_names(program),
        names=_names({**program.state_dict, **program.constants}),
        otherwise=_OTHERWISE,
        one_input=one_input,
    )
    return import_proto(origin, proto, dims=dims, values=values, single=single, max_memory=max_memory, exact=exact)


def _check_real(path: str, program: Any) -> None:
    """Refuse complex inputs, weights and results, which ONNX has only as pairs of numbers."""
    inputs = [node for node in program.graph.nodes if node.op == "placeholder"]
    for node in (*inputs, *program.graph.output_node().all_input_nodes):
        value = node.meta.get("val")
        if hasattr(value, "is_complex") and value.is_complex():
            found = f"{value.dtype} (take the real and imaginary parts with torch.view_as_real)"
            raise UnfitError(path, "real numbers as inputs, weights and results", found, node.name)


def _run_of(program: Any) -> Callable[[Sequence[Any]], Any]:
    """Return a function that runs a program."""
    from torch.utils import _pytree as pytree

    with quiet():
        module = program.module(check_guards=False)

    def run(inputs: Sequence[Any]) -> Any:
        args, named = pytree.tree_unflatten(list(inputs), program.call_spec.in_spec)
        return module(*args, **named)

    return run


def _engine(run: Callable[[Sequence[Any]], Any], names: Sequence[str]) -> OnnxEngine:
    """Return a function that runs a program on arrays by name."""
    import torch
    from torch.utils import _pytree as pytree

    def called(_: Sequence[str], inputs: Mapping[str, Array]) -> list[Array]:
        with torch.no_grad():
            results = run([torch.from_numpy(np.array(inputs[name])) for name in names])
        leaves = [leaf for leaf in pytree.tree_leaves(results) if isinstance(leaf, torch.Tensor)]
        return [leaf.detach().resolve_conj().resolve_neg().numpy() for leaf in leaves]

    return OnnxEngine(called, f"torch {torch.__version__}", _ADVICE)


def _names(tensors: Mapping[str, Any]) -> TensorNames:
    """Return the names of a module's tensors; those that share memory have the first one's."""
    names: dict[TensorKey, list[str]] = {}
    seen = set()
    for name, tensor in tensors.items():
        place = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if tensor.is_floating_point() and tensor.numel() and place not in seen:
            seen.add(place)
            values = np.ascontiguousarray(tensor.detach().float().numpy())
            names.setdefault(tensor_key(values), []).append(name)
    return names
