"""The parts of all vectors: their form, and small tensors."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from reference_reader import Tensor

from generator.assembler import CONSTANT, DENSE, Item, assemble, f32

VALUES = [0x3FC00000, 0xC0000000, 0x40500000]
ONE = 0x3F800000
RAW = struct.pack("<3I", *VALUES)

#: A valid vector: name, requirements, bytes, and the tensors that it must decode to.
Valid = tuple[str, str, bytes, dict[str, Tensor]]
#: An invalid vector: name, code, requirements, bytes.
Invalid = tuple[str, str, str, bytes]


def valid(
    name: str, items: Sequence[Item] = (), sections: Sequence[tuple[int, bytes]] = (), ids: str = "", minor: int = 0
) -> Valid:
    """Return a valid vector of assembled tensors."""
    return name, ids, assemble(items, sections, minor=minor), {item.name: item.tensor() for item in items}


def constant(name: str = "a", shape: tuple[int, ...] = (4,), bits: int = 0x3FC00000, **kw: object) -> Item:
    """Return a constant tensor of 1.5."""
    return Item(b"\0" + bits.to_bytes(4, "little"), CONSTANT, shape, [bits], name=name, **kw)  # type: ignore[arg-type]


def dense(name: str = "a", shape: tuple[int, ...] = (3,), **kw: object) -> Item:
    """Return a dense tensor of three values under coder 0."""
    return Item(b"\0\0" + RAW, DENSE, shape, VALUES, name=name, **kw)  # type: ignore[arg-type]


def copy(name: str, back: int, original: Item | None = None) -> Item:
    """Return a copy of the tensor `back` tensors before it, not counting copies."""
    return Item(b"", name=name, back=back, original=original)


def ones(name: str, *shape: int) -> Item:
    """Return a constant tensor, or a dense one if it has a single element."""
    if shape == (1,):
        return Item(b"\0\0" + f32(1.0), DENSE, shape, [0x3F800000], name=name)
    return constant(name, shape, 0x3F800000)
