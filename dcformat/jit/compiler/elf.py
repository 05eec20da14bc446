"""Link one relocatable ELF object (x86-64 or AArch64) into a `CodeImage`.

This linker understands only the objects that LLVM emits for position-independent kernels, and refuses all others with
`LinkError`; the kernel then runs without a saved image. The arithmetic of relocations is defined in the System V ABI,
AMD64 supplement, table 4.10, and in ELF for the Arm 64-bit Architecture (AAELF64), section 5.7.
"""

from __future__ import annotations

import struct

from dcformat.jit.machine_code.image import CodeImage
from dcformat.records import record

X86_64, AARCH64 = 62, 183

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELA = struct.Struct("<QQq")

_PROGBITS, _RELA_TYPE, _NOBITS, _REL_TYPE, _SYMTAB = 1, 4, 8, 9, 2
_WRITE, _ALLOC, _EXEC = 1, 2, 4
_ABS, _COMMON = 0xFFF1, 0xFFF2


class LinkError(ValueError):
    """The object cannot become a self-contained image."""


@record
class _Section:
    name: str
    kind: int
    flags: int
    data: memoryview
    align: int
    link: int
    info: int


@record
class _Symbol:
    name: str
    section: int
    value: int


def link(data: bytes, entry: str) -> CodeImage:
    """Lay out an object's code and constants in one block, resolve internal references, and list external ones.

    Parameters
    ----------
    data : bytes
        A relocatable ELF object.
    entry : str
        Name of the entry function.
    """
    machine, sections = _read(data)
    symbols = _symbols(sections)
    layout = _ImageLayout(machine, sections, symbols)
    for section in sections:
        if section.kind == _REL_TYPE:
            raise LinkError("relocations without addends")
        if section.kind == _RELA_TYPE and section.info in layout.places:
            layout.relocate(section)
    for symbol in symbols:
        if symbol.name == entry and symbol.section in layout.places:
            return layout.finish(layout.places[symbol.section] + symbol.value)
    raise LinkError(f"no function {entry}")


def _read(data: bytes) -> tuple[int, list[_Section]]:
    (ident, kind, machine, _, _, _, start, _, _, _, _, size, count, names) = _HEADER.unpack_from(data)
    if ident[:6] != b"\x7fELF\x02\x01" or kind != 1 or machine not in (X86_64, AARCH64) or size != _SECTION.size:
        raise LinkError("not a 64-bit little-endian relocatable object for x86-64 or AArch64")
    view = memoryview(data)
    headers = [_SECTION.unpack_from(data, start + i * size) for i in range(count)]
    table = view[headers[names][4] :]
    sections = []
    for name, sort, flags, _, offset, length, link_, info, align, _ in headers:
        content = view[offset : offset + length] if sort != _NOBITS else view[:0]
        sections.append(_Section(_text(table, name), sort, flags, content, max(align, 1), link_, info))
    return machine, sections


def _text(table: memoryview, start: int) -> str:
    end = start
    while table[end]:
        end += 1
    return bytes(table[start:end]).decode("ascii")


def _symbols(sections: list[_Section]) -> list[_Symbol]:
    for section in sections:
        if section.kind == _SYMTAB:
            names = sections[section.link].data
            rows = _SYMBOL.iter_unpack(section.data)
            return [_Symbol(_text(names, name), index, value) for name, _, _, index, value, _ in rows]
    raise LinkError("no symbols")


class _ImageLayout:
    """An image under construction: the places of sections, slots for external addresses, stubs that jump to them."""

    def __init__(self, machine: int, sections: list[_Section], symbols: list[_Symbol]) -> None:
        self.machine, self.sections, self.symbols = machine, sections, symbols
        self.image = bytearray()
        self.places: dict[int, int] = {}
        self.slots: dict[str, int] = {}
        self.stubs: dict[str, int] = {}
        for index, section in enumerate(sections):
            # Leave out the unwinding tables: nothing unwinds through a kernel.
            if section.flags & _ALLOC and section.name != ".eh_frame":
                if section.flags & _WRITE or section.kind != _PROGBITS:
                    if len(section.data) or section.kind == _NOBITS:
                        raise LinkError(f"writable data ({section.name})")
                    continue
                self.places[index] = self._append(section.data, section.align)
        self._reserve()

    def _append(self, data: bytes | memoryview, align: int) -> int:
        self.image += bytes(-len(self.image) % align)
        place = len(self.image)
        self.image += data
        return place

    def _reserve(self) -> None:
        """Give every external symbol a slot and a stub."""
        for symbol in self.symbols:
            if symbol.section == 0 and symbol.name and symbol.name not in self.slots:
                slot = self._append(bytes(8), 8)
                self.slots[symbol.name] = slot
                self.stubs[symbol.name] = self._append(self._stub(slot), 8)

    def _stub(self, slot: int) -> bytes:
        """Return code that follows a slot (eight bytes further on) and jumps to the address in it."""
        if self.machine == X86_64:
            return b"\xff\x25" + struct.pack("<i", -8 - 6)  # jmp *-14(%rip)
        load = 0x58000000 | ((-8 >> 2) & 0x7FFFF) << 5 | 16  # ldr x16, .-8
        return struct.pack("<II", load, 0xD61F0200)  # br x16

    def _slot(self, symbol: _Symbol) -> int:
        """Return the slot of a symbol's address; only external symbols have one."""
        if symbol.name not in self.slots:
            raise LinkError(f"the address of {symbol.name or 'a section'} in a table")
        return self.slots[symbol.name]

    def _target(self, symbol: _Symbol) -> int:
        """Return the place of a symbol, or of the stub that jumps to it."""
        if symbol.section in self.places:
            return self.places[symbol.section] + symbol.value
        if symbol.section == 0 and symbol.name in self.stubs:
            return self.stubs[symbol.name]
        raise LinkError(f"{symbol.name or 'a symbol'} lies in section {symbol.section:#x}, which is not in the image")

    def relocate(self, section: _Section) -> None:
        """Apply one section's relocations."""
        apply = _x86_64 if self.machine == X86_64 else _aarch64
        for offset, info, addend in _RELA.iter_unpack(section.data):
            apply(self, self.places[section.info] + offset, info & 0xFFFFFFFF, self.symbols[info >> 32], addend)

    def finish(self, entry: int) -> CodeImage:
        """Return the finished image. Each reserved but unused symbol costs a few bytes and an import."""
        return CodeImage(bytes(self.image), entry, tuple((slot, name) for name, slot in self.slots.items()))


def _signed(layout: _ImageLayout, place: int, value: int) -> None:
    if not -(1 << 31) <= value < 1 << 31:
        raise LinkError("a distance over 2 GiB")
    struct.pack_into("<i", layout.image, place, value)


def _x86_64(layout: _ImageLayout, place: int, kind: int, symbol: _Symbol, addend: int) -> None:
    if kind in (2, 4):  # PC32, PLT32
        if symbol.section == 0 and kind == 2:
            raise LinkError(f"data of {symbol.name} outside the image")
        _signed(layout, place, layout._target(symbol) + addend - place)
    elif kind in (9, 41, 42):  # GOTPCREL, GOTPCRELX, REX_GOTPCRELX
        _signed(layout, place, layout._slot(symbol) + addend - place)
    else:
        raise LinkError(f"x86-64 relocation {kind}")


#: AArch64 loads and stores by the low 12 bits of an address: relocation -> log2 of the access's size.
_LOW12 = {277: 0, 278: 0, 284: 1, 285: 2, 286: 3, 299: 4, 312: 3}


def _aarch64(layout: _ImageLayout, place: int, kind: int, symbol: _Symbol, addend: int) -> None:
    target = layout._slot(symbol) if kind in (311, 312) else layout._target(symbol)
    value = target + addend
    if kind in (275, 311):  # ADR_PREL_PG_HI21, ADR_GOT_PAGE
        pages = (value >> 12) - (place >> 12)
        _patch(layout, place, (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5, pages, 21, 0x60FFFFE0)
    elif kind in _LOW12:
        low, shift = value & 0xFFF, _LOW12[kind]
        if low & ((1 << shift) - 1):
            raise LinkError("an unaligned constant")
        _patch(layout, place, (low >> shift) << 10, 0, 1, 0xFFF << 10)
    elif kind in (282, 283):  # JUMP26, CALL26
        _patch(layout, place, (value - place >> 2) & 0x3FFFFFF, value - place >> 2, 26, 0x3FFFFFF)
    elif kind == 274:  # ADR_PREL_LO21
        delta = value - place
        _patch(layout, place, (delta & 3) << 29 | (delta >> 2 & 0x7FFFF) << 5, delta, 21, 0x60FFFFE0)
    elif kind == 261:  # PREL32
        _signed(layout, place, value - place)
    else:
        raise LinkError(f"AArch64 relocation {kind}")


def _patch(layout: _ImageLayout, place: int, bits: int, value: int, width: int, mask: int) -> None:
    """Set an instruction's field to `bits`, which encode the signed number `value` of `width` bits."""
    if not -(1 << (width - 1)) <= value < 1 << (width - 1):
        raise LinkError("a distance beyond an instruction's reach")
    (word,) = struct.unpack_from("<I", layout.image, place)
    struct.pack_into("<I", layout.image, place, (word & ~mask & 0xFFFFFFFF) | bits)
