"""Makes TensorFlow Lite files: small networks of random operators, damaged in most cases."""

from __future__ import annotations

import struct
from random import Random
from typing import Any

import numpy as np
from dcformat_interop.tflite_import.calls import LOWERINGS
from dcformat_interop.tflite_import.schema import DTYPES, OPERATORS, OPTIONS

from fuzz.primitives import change_bytes
from tests.interop.tflite.writer import Number, Operator, Tensor, constant, model

_KNOWN = tuple(LOWERINGS)
_SHAPES = ((1, 4, 4, 3), (1, 8), (1, 2, 3), (4,), (), (1, 1, 1, 2), (2, 3))
_WORDS = (0, 1, 2, 4, 8, 255, 65535, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def tflite(random: Random) -> bytes:
    """Return a file; one in four is undamaged."""
    data = bytearray(_network(random))
    if random.randrange(4) == 0:
        return bytes(data)
    if random.getrandbits(1):
        return change_bytes(random, bytes(data))
    for _ in range(random.randint(1, 3)):
        struct.pack_into("<I", data, random.randrange(len(data) // 4) * 4, random.choice((*_WORDS, len(data))))
    return bytes(data)


def _network(random: Random) -> bytes:
    """Return a network of up to four operators, whose inputs need not fit."""
    usual = _value(random)
    tensors = [usual, *(_constant(random) for _ in range(random.randint(1, 4)))]
    operators = []
    for _ in range(random.randint(1, 4)):
        op_type = random.choice(_KNOWN if random.randrange(16) else OPERATORS)
        inputs = [
            random.randrange(-1 if random.randrange(8) == 0 else 0, len(tensors)) for _ in range(random.randint(1, 4))
        ]
        if random.getrandbits(1):
            inputs[0] = random.choice((0, len(tensors) - 1))
        made = random.choice((1, 1, 1, 2, 3))
        operators.append(Operator(op_type, inputs, range(len(tensors), len(tensors) + made), _options(random, op_type)))
        tensors += [_value(random) if random.randrange(8) == 0 else usual for _ in range(made)]
    return model(tensors, operators, [0], [len(tensors) - 1])


def _value(random: Random) -> Tensor:
    shape = random.choice(_SHAPES)
    signature = [-1, *shape[1:]] if shape and random.getrandbits(1) else None
    if random.getrandbits(1):
        return Tensor(shape, signature=signature)
    dtype = random.choice(("int8", "int8", "uint8", "int16", "int32", random.choice(DTYPES)))
    return Tensor(shape, dtype=dtype, scale=random.choice((None, 0.5, 0.1)), signature=signature)


def _constant(random: Random) -> Tensor:
    if random.getrandbits(1):
        count = random.randint(0, 4)
        return constant(np.array([random.choice((0, 1, 2, 3, -1, 4)) for _ in range(count)], np.int32))
    shape = random.choice(((3, 3, 3, 3), (1, 2, 2, 3), (5, 8), (3,), (4, 4), ()))
    values = np.array([random.gauss(0, 1) for _ in range(int(np.prod(shape, dtype=int)))], np.float32).reshape(shape)
    if random.getrandbits(1):
        return constant(values.astype(np.float16) if random.randrange(4) == 0 else values)
    scales: Any = 0.1 if not shape or random.getrandbits(1) else np.full(shape[0], 0.1)
    sparsity = {0: np.arange(len(shape), dtype=np.int32), 2: [{1: Number("i", size)} for size in shape]}
    return constant(
        (values * 10).astype(np.int8), scale=scales, sparsity=sparsity if random.randrange(4) == 0 else None
    )  # fmt: skip


def _options(random: Random, op_type: str) -> dict[str, Any]:
    known = OPTIONS.get(op_type)
    out: dict[str, Any] = {}
    for entry in known.fields if known is not None else ():
        if random.randrange(4):
            small = random.choice((0, 1, 1, 2, 3, -1))
            value = small if entry.form in "bif" else small & 1
            out[entry.name] = [value, 1] if entry.is_vector else value
    return out
