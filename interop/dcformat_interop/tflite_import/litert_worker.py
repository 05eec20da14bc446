"""Runs a TensorFlow Lite model with LiteRT; as a program, so that no file can stop the process that checks it.

The program reads an .npz archive from stdin: ``model`` has the bytes of the file, and ``input.N`` the arrays of input
N, one for each call. It writes the outputs of all calls, as ``output.N``, to stdout. With an argument, it runs
LiteRT's own kernels instead of those of XNNPACK.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def outputs(model: bytes, inputs: Sequence[Array], other_kernels: bool) -> list[Array]:
    """Return the outputs of all calls; the parameters and the result are those of `litert.run_litert`."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if other_kernels else OpResolverType.AUTO
    interpreter = Interpreter(model_content=model, experimental_op_resolver_type=kernels)
    details = interpreter.get_input_details()
    for detail, array in zip(details, inputs, strict=True):
        if tuple(detail["shape"]) != array.shape[1:]:
            interpreter.resize_tensor_input(detail["index"], array.shape[1:])
    interpreter.allocate_tensors()
    found: list[list[Any]] = [[] for _ in interpreter.get_output_details()]
    for arrays in zip(*inputs, strict=True):
        interpreter.reset_all_variables()
        for detail, array in zip(details, arrays, strict=True):
            interpreter.set_tensor(detail["index"], array)
        interpreter.invoke()
        for results, detail in zip(found, interpreter.get_output_details(), strict=True):
            results.append(interpreter.get_tensor(detail["index"]))
    return [np.stack(results) for results in found]


def main() -> None:
    """Run the program."""
    given = np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False)
    inputs = [given[f"input.{number}"] for number in range(len(given.files) - 1)]
    results = outputs(given["model"].tobytes(), inputs, bool(sys.argv[1:]))
    arrays: dict[str, Any] = {f"output.{number}": result for number, result in enumerate(results)}
    np.savez(sys.stdout.buffer, **arrays)


if __name__ == "__main__":
    main()
