"""The section that makes a file a delta (spec, "Deltas")."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Protocol

from dcformat import layout
from dcformat.cursor import Cursor, text, varint
from dcformat.errors import EncodingError, IndexRangeError
from dcformat.model import Delta, Origin, Step

KINDS = ("kept", "new", "changed")
_MAX_SECTIONS = 1 << 8


class _Entry(Protocol):
    """The properties of a tensor of the delta that the section depends on."""

    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...


def write_delta(delta: Delta) -> bytes:
    """Return the section's body."""
    out = bytearray(delta.base + delta.result + varint(len(delta.sections)))
    for kind, body in delta.sections:
        out.append(kind)
        out += b"\0" if body is None else varint(len(body) + 1) + body
    out.append(delta.in_place)
    out += varint(len(delta.steps))
    for step in delta.steps:
        out += varint(4 * step.count + KINDS.index(step.kind))
        out += varint(step.first) if step.kind == "kept" else b""
        for origin in step.origins:
            out += varint(4 * origin.number + 2 * (origin.name is not None) + (origin.scale is not None))
            out += b"" if origin.name is None else text(origin.name)
            out += b"" if origin.scale is None else struct.pack("<f", origin.scale)
    return bytes(out)


def read_delta(cursor: Cursor, tensors: Sequence[_Entry]) -> Delta:
    """Parse the section's body, given the tensors of the delta. Raises `FormatError`."""
    base, result = (bytes(cursor.take(layout.DIGEST_BYTES, "digest of a delta")) for _ in range(2))
    sections: list[tuple[int, bytes | None]] = []
    for _ in range(cursor.varint("sections of a delta", _MAX_SECTIONS)):
        sections.append(_read_section(cursor, sections[-1][0] if sections else layout.SECTION_TENSORS))
    order = cursor.u8("order of a delta")
    if order > 1:
        raise EncodingError("order of a delta", got=order, expected="0 or 1")
    steps = []
    used = made = 0
    for _ in range(cursor.varint("steps of a delta", layout.MAX_TENSORS)):
        step = _read_step(cursor)
        if order and (step.kind == "kept" or any(origin.name is not None for origin in step.origins)):
            raise EncodingError("step of a delta", got=step.kind, expected="none that keeps or renames, in place")
        made += step.count
        if step.kind == "changed":
            _require_difference(tensors[used : used + 1])
        used += {"kept": 0, "new": step.count, "changed": 1}[step.kind]
        if used > len(tensors) or made > layout.MAX_TENSORS:
            break
        steps.append(step)
    if used != len(tensors) or made > layout.MAX_TENSORS:
        expected = f"each of {len(tensors)} used once, and at most {layout.MAX_TENSORS} made"
        raise IndexRangeError("tensors of a delta", got=f"{used} used, {made} made", expected=expected)
    cursor.finish("delta")
    return Delta(base, result, tuple(sections), tuple(steps), bool(order))


def _read_section(cursor: Cursor, last: int) -> tuple[int, bytes | None]:
    kind = cursor.u8("section of a delta")
    known = layout.SECTION_GRAPH <= kind <= layout.SECTION_SELF_TEST
    if kind <= last or not (known or kind >= layout.IGNORABLE):
        raise EncodingError("section of a delta", got=kind, expected="2 to 5 or from 128 on, ascending")
    length = cursor.varint("section length", layout.MAX_CONTENTS_BYTES + 1)
    return kind, bytes(cursor.take(length - 1, "section")) if length else None


def _read_step(cursor: Cursor) -> Step:
    value = cursor.varint("step of a delta", 4 * layout.MAX_TENSORS + 3)
    count, kind = value >> 2, value & 3
    if not count or kind >= len(KINDS):
        raise EncodingError("step of a delta", got=value, expected="a count of 1 or more and a kind below 3")
    first, origins = 0, []
    if kind == 0:
        first = cursor.varint("first tensor that is kept", layout.MAX_TENSORS)
    elif kind == 2:
        for _ in range(count):
            number = cursor.varint("origin", 4 * layout.MAX_TENSORS + 3)
            name = cursor.text("tensor name", layout.MAX_NAME_BYTES, min_bytes=1) if number & 2 else None
            scale = cursor.f32("scale") if number & 1 else None
            if scale is not None and not scale > 0:
                raise EncodingError("scale", got=scale, expected="a positive number")
            origins.append(Origin(number >> 2, name, scale))
    return Step(KINDS[kind], count, first, tuple(origins))


def _require_difference(tensors: Sequence[_Entry]) -> None:
    for tensor in tensors:  # none if there are too few, which is an error of its own
        if tensor.dtype != "uint8" or len(tensor.shape) != 1:
            found = f"{tensor.dtype} of rank {len(tensor.shape)}"
            raise EncodingError(f"difference {tensor.name!r}", got=found, expected="uint8 of rank 1")


def whole_sections(delta: Delta, base: Mapping[int, bytes]) -> list[tuple[int, bytes]] | None:
    """Return the new file's sections, given those of the base; None if the base lacks one that is kept."""
    if any(body is None and kind not in base for kind, body in delta.sections):
        return None
    return [(kind, base[kind] if body is None else body) for kind, body in delta.sections]
