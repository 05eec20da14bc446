"""Doors that run a network, or predict the memory that running takes."""

from __future__ import annotations

from math import prod
from typing import Any

import dcformat_runtime
import numpy as np
import numpy.typing as npt
from dcformat_runtime.ports import PortInfo
from dcformat_runtime.self_testing import run_self_test

import dcformat
from dcformat.errors import FormatError
from dcformat.graph import AvgPool, Quantize, Reduce, Softmax
from dcformat.model import Model, Tensor
from fuzz.doors import SLACK, Door, choice, limits, require

#: A valid network may have indices beyond a table.
REFUSALS = (FormatError, dcformat_runtime.InputError)


def predict(data: bytes) -> str:
    """Predict the memory that running takes, from only the contents."""
    with dcformat.open(data, **limits(data)) as file:
        for backend in ("numba", "numpy"):
            rows = dcformat_runtime.predict_memory(file, backend=backend, threads=1 + (choice(data) >> 5 & 3))
            require(all(type(row.bytes) is int and row.bytes >= 0 for row in rows), "a row is no count of bytes")
    return "ok"


def session(data: bytes) -> str:
    """Run a file's network on a few inputs; both backends must give the same bits where that is promised."""
    deterministic = bool(choice(data) >> 6 & 1)
    backends = ("numba", "numpy") if choice(data) >> 7 & 1 else ("numpy", "numba")
    outputs = []
    for backend in backends[: 1 + deterministic]:
        options: dict[str, Any] = {"backend": backend, "deterministic": deterministic, **limits(data)}
        made = dcformat_runtime.load(data, threads=1 + (choice(data) >> 11 & 1), **options)
        outputs += [_called(made, batch, bool(choice(data) >> 12 & 1)) for batch in (1, 3)]
    if deterministic and _is_tame(dcformat.load(data, **limits(data))):
        require(outputs[0] == outputs[2] and outputs[1] == outputs[3], "backends differ in deterministic mode")
    return "ok"


def _called(made: dcformat_runtime.Session, batch: int, pixels: bool) -> bytes:
    def whole(port: PortInfo) -> list[int]:
        return [batch if size is None else size for size in port.shape]

    given: dict[str, npt.NDArray[Any]] = {}
    for port in made.inputs:
        x = np.arange(prod(whole(port))).reshape(whole(port)) % 7
        if not port.dtype.startswith("float"):
            given[port.name] = (x & 1).astype(port.dtype)
        else:
            given[port.name] = (37 * x).astype(np.uint8) if pixels else ((x - 3) / 4).astype(port.dtype)
    found = made(given)
    for port in made.outputs:
        out = found[port.name]
        require(out.dtype == port.dtype and list(out.shape) == whole(port), "an output of another kind")
    return b"".join(out.tobytes() for out in found.values())


def _is_tame(model: Model) -> bool:
    """Return whether no sum overflows and no number is denormal; otherwise backends may differ (docs/runtime.md).

    Numbers are multiples of a quantum, which each operator makes finer: by its weights' last bits, or by its divisions.
    """
    if model.graph is None or any(isinstance(node, Softmax) for node in model.graph.nodes[:-1]):
        return False
    rule = model.graph.preprocessing
    if rule is not None and not all(n == 0 or 2**-10 < abs(n) < 2**10 for n in (*rule.mean, *rule.std)):
        return False
    most, quantum = 20.0, -70.0 if rule is not None else -2.0
    for node in model.graph.nodes:
        most += np.log2(max(len(node.inputs), 1))
        quantum -= 24 + 32 * isinstance(node, AvgPool | Reduce)
        if isinstance(node, Quantize):  # divides by its scale, and then multiplies by it
            most += abs(np.log2(node.scale))
            quantum = min(quantum, np.log2(node.scale) - 24)
        for name in node.tensors:
            tensor = model.tensors[name]
            values = abs(_numbers(tensor))
            values = values[values > 0]
            most += max(0.0, np.log2(tensor.size * values.max(initial=1e-30)))
            quantum += min(0.0, np.log2(values.min(initial=1.0)) - 24)
    return bool(most < 110 and quantum > -126)


def _numbers(tensor: Tensor) -> npt.NDArray[np.float64]:
    values = tensor.values()
    if tensor.dtype == "bfloat16":
        values = (values.astype("<u4") << 16).view("<f4")
    return values.astype(np.float64) * tensor.scale


def self_test(data: bytes) -> str:
    """Run a file's self-test."""
    model = dcformat.load(data, **limits(data))
    if model.graph is None:
        return "no graph"
    options: dict[str, Any] = {"backend": ("numba", "numpy")[choice(data) >> 8 & 1], "threads": 1, **limits(data)}
    made = dcformat_runtime.Session.from_model(model, **options)
    require(run_self_test(model, made) in (True, False, None), "a self-test neither passes nor fails")
    return "ok"


def doors() -> list[Door]:
    """Return these doors."""
    return [
        Door("predict", predict, 8, "network"),
        Door("session", session, 10, "network", SLACK + (2 << 20), refusals=REFUSALS),
        Door("self-test", self_test, 3, "network", SLACK + (2 << 20), refusals=REFUSALS),
    ]
