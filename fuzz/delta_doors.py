"""Doors for deltas, and the makers of their inputs: a delta with its base, and a difference with its origin."""

from __future__ import annotations

import struct
from functools import cache
from random import Random

import numpy as np

import dcformat
from dcformat import layout
from dcformat.codecs.difference_writer import write_difference
from dcformat.codecs.differences import apply_difference
from dcformat.errors import ChecksumError, FormatError
from dcformat.model import STORAGE, Model, Tensor
from dcformat.records import replace
from fuzz import container, mutators
from fuzz.doors import WORK, Door, choice, limits, require, with_digest
from fuzz.primitives import change_bytes
from fuzz.reference import BYTES, DecodeError, apply_reference, summary

_DIGESTS = 2 * layout.DIGEST_BYTES
#: Number of pairs of a delta and its base from which mutations begin.
_PAIRS = 80
#: The base is followed by a delta in the input.
_HEAD = struct.Struct("<I")
_ORIGIN = struct.Struct("<BHI")


# --- makers ---------------------------------------------------------------------------------------------------------


def delta(random: Random) -> bytes:
    """Return a base and a delta that may be changed; the parts about the base stay right more often than not."""
    base, made = _pair(random.randrange(_PAIRS))
    file = container.parse(made)
    what = random.randrange(10)
    if what < 4:
        entries = [entry for entry in file.entries if entry.payload]
        for entry in random.sample(entries, min(len(entries), random.randrange(1, 3))):
            entry.payload = entry.payload[:2] + change_bytes(random, entry.payload[2:])
            entry.dims = (
                (max(len(entry.payload) - 2, 0),) if entry.dtype == layout.DTYPES.index("uint8") else entry.dims
            )
        made = file.build()
    elif what < 7:
        body = file.section(layout.SECTION_DELTA) or b""
        file.put(layout.SECTION_DELTA, body[:_DIGESTS] + change_bytes(random, body[_DIGESTS:]))
        made = file.build()
    elif what < 9:
        made = mutators.mutate(random, file, [container.parse(_pair(random.randrange(_PAIRS))[1])])
    return _HEAD.pack(len(base)) + base + made


def difference(random: Random) -> bytes:
    """Return the dtype, the size and the seed of an origin, and a difference from it that may be changed."""
    number, count = random.randrange(len(layout.DTYPES)), random.choice((0, 1, 2, 5, 40, 300))
    dtype, seed = layout.DTYPES[number], random.getrandbits(4)
    origin = _origin(dtype, count, seed)
    there = np.random.default_rng(random.getrandbits(8)).random(count) < 0.2
    new = np.where(there, _origin(dtype, count, seed ^ 1), origin).astype(origin.dtype)
    made = write_difference(new, origin, dtype, (count,))
    if random.randrange(8):
        made = change_bytes(random, made)
    return _ORIGIN.pack(number, count, seed) + made


def _origin(dtype: str, count: int, seed: int) -> np.ndarray:
    source, storage = np.random.default_rng(seed), STORAGE[dtype]
    if dtype == "bool":
        return source.integers(0, 2, count).astype(bool)
    different = 24 if seed & 2 else count
    values: np.ndarray = source.integers(0, 256, different * storage.itemsize, np.uint8).view(storage)
    return values[source.integers(0, 24, count)] if seed & 2 else values


@cache
def _pair(number: int) -> tuple[bytes, bytes]:
    """Return a small base and a delta from it."""
    from fuzz.seeds import model_file

    random = Random(number)
    old = dcformat.load(model_file(random), max_memory=64 << 20)
    tensors: dict[str, Tensor] = {}
    for name, tensor in old.tensors.items():
        what = random.randrange(6)
        if what == 0 or tensor.size > 2000:
            tensors[name] = tensor
        elif what == 1:
            tensors[f"{name}'"] = replace(tensor, name=f"{name}'")
        elif what == 2 and tensor.dtype == "int8":
            tensors[name] = replace(tensor, scale=0.75)
        else:
            tensors[name] = _altered(random, tensor)
    model = Model(tensors, metadata={"k": "v"} if random.randrange(2) else old.metadata, labels=old.labels)
    base = dcformat.dumps(old)
    return base, dcformat.dumps(dcformat.delta(model, base))


def _altered(random: Random, tensor: Tensor) -> Tensor:
    values = tensor.to_dense().reshape(-1).copy()
    for _ in range(random.choice((1, 2, len(values)))):
        if len(values):
            values[random.randrange(len(values))] = values[random.randrange(len(values))] if random.randrange(4) else 0
    return Tensor(tensor.name, tensor.shape, tensor.dtype, values, scale=tensor.scale)


# --- doors ----------------------------------------------------------------------------------------------------------


def apply(data: bytes) -> str:
    """Apply a delta to its base, and compare the result with the reference decoder's."""
    if len(data) < _HEAD.size:
        return "no input"
    length = _HEAD.unpack_from(data)[0]
    base, made = data[_HEAD.size : _HEAD.size + length], data[_HEAD.size + length :]
    refusal: FormatError | None = None
    try:
        model = _applied(made, base, data)
    except FormatError as error:
        refusal = error
    if choice(data) % 16 == 0 and len(data) < BYTES and (refusal is None or refusal.code not in ("E07", "E16")):
        try:
            # Unlike `apply`, the reference decoder checks the delta's own digest, as `verify` does.
            theirs, code = summary(apply_reference(with_digest(made), base)), "ok"
        except (DecodeError, FormatError) as error:
            theirs, code = {}, error.code
        if code != "E07":
            ours = "ok" if refusal is None else refusal.code
            require((ours == "ok") == (code == "ok"), f"the package says {ours}, the reference decoder {code}")
            if refusal is None:
                require([row["name"] for row in theirs["tensors"]] == list(model.tensors), "other tensors")
    if refusal is not None:
        raise refusal
    return "ok"


def _applied(made: bytes, base: bytes, data: bytes) -> Model:
    try:
        return dcformat.apply(made, base, **limits(data))
    except ChecksumError as error:
        if error.field != "content digest of the new file":
            raise
        # Everything else was right: with the right digest, the delta must be accepted.
        file = container.parse(made)
        body = file.section(layout.SECTION_DELTA) or b""
        file.put(layout.SECTION_DELTA, body[: layout.DIGEST_BYTES] + bytes.fromhex(str(error.got)) + body[_DIGESTS:])
        dcformat.apply(file.build(), base, **limits(data))
        raise


def decode_difference(data: bytes) -> str:
    """Apply a difference to its origin; the result must have a difference from the origin in turn."""
    if len(data) < _ORIGIN.size:
        return "no input"
    number, count, seed = _ORIGIN.unpack_from(data)
    dtype = layout.DTYPES[number % len(layout.DTYPES)]
    origin = _origin(dtype, count % 4096, seed)
    string = np.frombuffer(data, np.uint8, offset=_ORIGIN.size)
    new = apply_difference(string, origin, dtype, "difference", WORK)
    require((len(new), new.dtype) == (len(origin), origin.dtype), "another size or dtype")
    if choice(data) % 8 == 0:
        again = np.frombuffer(write_difference(new, origin, dtype, (len(new),)), np.uint8)
        require(apply_difference(again, origin, dtype, "difference").tobytes() == new.tobytes(), "other elements")
    return "ok"


def doors() -> list[Door]:
    """Return the doors of this module."""
    return [
        Door("apply", apply, 10, source="delta", slack=16 << 20, seconds=5.0),
        Door("difference", decode_difference, 12, source="difference", slack=4 << 20),
    ]
