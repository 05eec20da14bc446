"""A program that runs a TensorFlow Lite model with LiteRT, so that no file can stop the process that checks it.

It reads an .npz archive from stdin: ``model`` has the bytes of the file, and ``input.N`` the arrays of input N, one for
each call. It writes the outputs of all calls, as ``output.N``, to stdout. With an argument, it runs LiteRT's own
kernels instead of those of XNNPACK.
"""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np


def main() -> None:
    """Run the model."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if sys.argv[1:] else OpResolverType.AUTO
    given = np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False)
    interpreter = Interpreter(model_content=given["model"].tobytes(), experimental_op_resolver_type=kernels)
    inputs = [given[f"input.{number}"] for number in range(len(given.files) - 1)]
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
    outputs: dict[str, Any] = {f"output.{number}": np.stack(results) for number, results in enumerate(found)}
    np.savez(sys.stdout.buffer, **outputs)


if __name__ == "__main__":
    main()
