"""Vectors of coder 6, valid and invalid: section 9 of `coders.md`."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from reference_coders import fresh
from reference_prediction import IntegerDecoder, predicted_chunk

from generator.assembler import DENSE, Item, assemble, varint
from generator.packed import BLOCKS, EVERY, TRANSPOSED
from generator.ranges import RangeEncoder, integer_bits, number_bits
from generator.samples import Invalid, Valid, dense, valid

#: Coefficients that add up the neighbours of a smooth surface.
SMOOTH = (60, -8, 2, 5, 50, -48, 4, 1, -3, 9, -7, 2, 1, 6)


@dataclass
class Predicted:
    """An int8 tensor under coder 6."""

    shape: tuple[int, ...]
    integers: Sequence[int]
    coefficients: Sequence[int] = ()
    width: int = 1
    height: int = 1
    flags: int = 0
    per_chunk: int = 0
    more: dict[str, object] = field(default_factory=dict)

    def item(self) -> Item:
        """Return the tensor, assembled."""
        rows, size = (self.shape or (1,))[0], len(self.integers)
        columns = size // rows if rows else 1
        lines = [list(self.integers[k * columns :][:columns]) for k in range(rows)]
        if self.flags & TRANSPOSED:
            lines = [list(column) for column in zip(*lines, strict=True)]
        step = self.per_chunk or max(len(lines), 1)
        bodies = [self.chunk(lines[start : start + step]) for start in range(0, max(len(lines), 1), step)]
        table = b"".join(varint(len(body)) for body in bodies) if self.per_chunk else b""
        payload = bytes([6 | self.flags]) + varint(self.per_chunk) + table + b"".join(bodies)
        values = [x & 255 for x in self.integers]
        return Item(payload, DENSE, self.shape, values, dtype="int8", scale=0.5, **self.more)  # type: ignore[arg-type]

    def chunk(self, lines: list[list[int]]) -> bytes:
        """Return a chunk's stream."""
        if not sum(map(len, lines)):
            return b""
        coder = RangeEncoder()
        coder.queue += number_bits(len(self.coefficients), 4)
        if self.coefficients:
            for number in (self.width - 1, self.height - 1, *self.coefficients):
                coder.queue += integer_bits(number, True)
        for line in lines:
            for x in line:
                coder.queue += number_bits(x + 128, 8)
        predicted_chunk(coder, len(lines), len(lines[0]))
        return coder.finish()


def surface(lines: int, length: int, width: int, seed: int, size: int = 30) -> list[int]:
    """Return integers that resemble their neighbours in a line and, at the distance `width`, above each other."""
    source, out = random.Random(seed), []
    for at in range(lines * length):
        j = at % length
        above = out[-width] if j >= width else 0
        left = out[-1] if j % width else above
        out.append(max(-128, min(127, (left + above) // 2 + source.randrange(-size, size + 1))))
    return out


def valid_predicted() -> Iterator[Valid]:
    """Every tap, the ends of all ranges, chunks and shapes."""
    base = Predicted((6, 4, 3, 3), surface(6, 36, 3, 1), SMOOTH, 3, 3)
    for name, tensor in (
        ("kernels", base),
        ("no_taps", replace(base, coefficients=())),
        ("transposed", replace(base, coefficients=SMOOTH[:3], width=6, height=1, flags=TRANSPOSED)),
        ("chunks", replace(base, per_chunk=4)),
        ("transposed_chunks", replace(base, coefficients=SMOOTH, width=2, height=2, flags=TRANSPOSED, per_chunk=5)),
        ("spectrum", Predicted((5, 60), surface(5, 60, 12, 2), SMOOTH, 12, 5)),
        ("partial_block", Predicted((5, 60), surface(5, 60, 7, 3), SMOOTH, 7, 4)),
        ("rank_0", Predicted((), [-128])),
        ("rank_1", Predicted((40,), surface(1, 40, 1, 4), (0, 0, 0, 64))),
        ("rank_1_transposed", Predicted((40,), surface(1, 40, 1, 4), (70, -6), 40, flags=TRANSPOSED)),
        ("of_none", Predicted((0, 3), [])),
    ):
        yield valid(f"predicted_{name}", [tensor.item()], ids="A22" if tensor.coefficients else "")
    for tap in range(14):
        only = [0] * tap + [40]
        yield valid(f"predicted_tap_{tap}", [replace(base, coefficients=only).item()], ids="A21")
    source = random.Random(5)
    noise = [source.randrange(-128, 128) for _ in range(1200)]
    largest = Predicted((12, 100), noise, [256, -256, 256] * 4 + [256, 256], 10, 10)
    yield valid("predicted_largest_coefficients", [largest.item()], ids="A22")
    yield valid("predicted_ends", [Predicted((10, 30), [127, -128] * 150, (-64, 3), 30).item()])
    yield valid("predicted_zeros", [Predicted((40, 60), [0] * 2399 + [127]).item()])
    few = [0 if source.randrange(5) else source.randrange(-128, 128) for _ in range(2400)]
    errors = [0] * 2400
    for place in (1805, 1864, 1865, 1924, 1925):
        errors[place] = 8  # two columns of lines 30, 31 and 32, after integers that are all 0
    yield valid("predicted_few_errors", [Predicted((40, 60), errors).item()])
    yield valid("predicted_few", [Predicted((40, 60), few).item()])
    yield valid("predicted_long", [Predicted((40, 60), surface(40, 60, 12, 6, 3), SMOOTH, 12, 5).item()])


def invalid_predicted() -> Iterator[Invalid]:
    """Parameters out of range, tensors that coder 6 cannot have, and streams of another length."""
    good = Predicted((4, 9), surface(4, 9, 3, 7), SMOOTH, 3, 3)
    item = good.item()
    for name, code, ids, tensor in (
        ("fifteen_taps", "E13", "A21", replace(good, coefficients=(*SMOOTH, 1))),
        ("width_0", "E13", "A22", replace(good, width=0)),
        ("height_0", "E13", "A22", replace(good, height=0)),
        ("wide_block", "E13", "A22", replace(good, width=10, height=1)),
        ("high_block", "E13", "A22", replace(good, width=5, height=2)),
        ("coefficient", "E13", "A22", replace(good, coefficients=(257,))),
        ("coefficient_below", "E13", "A22", replace(good, coefficients=(-257,))),
    ):
        yield f"predicted_{name}", code, ids, assemble([replace(item, payload=b"\6\0" + broken_stream(tensor))])
    single = replace(Predicted((), [0]).item(), payload=b"\6\0" + alone(257))
    yield "predicted_coefficient_alone", "E13", "A22", assemble([single])
    for name, code, payload in (
        ("byte_after", "E04", item.payload + b"\0"),
        ("cut", "E13", item.payload[:-3]),
        ("cut_short", "E13", item.payload[:4]),
    ):
        yield f"predicted_{name}", code, "A1", assemble([replace(item, payload=payload)])
    for name, flag in (("every_element", EVERY), ("blocks", BLOCKS), ("fillers", 64)):
        wrong = replace(item, payload=bytes([6 | flag]) + item.payload[1:])
        yield f"predicted_{name}", "E08", "P2", assemble([wrong])
    yield "predicted_float32", "E08", "P2", assemble([replace(dense(), payload=item.payload)])
    uint8 = replace(item, dtype="uint8", scale=1.0)
    yield "predicted_uint8", "E08", "P2", assemble([uint8])
    none = Predicted((0, 3), []).item()
    yield "predicted_byte_of_none", "E13", "P13", assemble([replace(none, payload=none.payload + b"\0")])
    long = replace(item, shape=((1 << 20) + 1,), payload=b"\x16\0\x55\x55\x55\x55", values=[])
    yield "predicted_long_line", "E06", "A20", assemble([long], digest=bytes(8))
    longest = replace(long, shape=(1 << 20,), payload=b"\x16\0\xff\xff\xff\xff")
    yield "predicted_longest_line_cut", "E13", "A1", assemble([longest], digest=bytes(8))


def alone(coefficient: int) -> bytes:
    """Return the stream of a single 0, of which a coefficient out of range changes nothing."""
    coder = RangeEncoder()
    put_parameters(coder, Predicted((), [0], [coefficient]))
    coder.queue += number_bits(128, 8)
    IntegerDecoder(coder).decode(0, [640] * 3)
    return coder.finish()


def broken_stream(tensor: Predicted) -> bytes:
    """Return a stream whose parameters a decoder must reject; after them it may hold anything."""
    coder = RangeEncoder()
    put_parameters(coder, tensor)
    return coder.finish() + bytes(8)


def put_parameters(coder: RangeEncoder, tensor: Predicted) -> None:
    """Code a predictor that has taps, whatever its numbers are."""
    coder.put(len(tensor.coefficients), 4)
    numbers = (tensor.width - 1, tensor.height - 1, *tensor.coefficients)
    models = fresh(64)
    for number in numbers:
        coder.queue += integer_bits(number, True)
        coder.integer(models, True)
