"""Objects for x86-64 and AArch64 become images with correct references; anything else is refused."""

import struct

import pytest

from dcformat.jit.compiler import elf

llvm = pytest.importorskip("llvmlite.binding")

#: A table in .rodata, reached by address; a call to an outside function; that function's address; a call inside.
SOURCE = """
target triple = "{triple}"
@table = internal constant [4 x i64] [i64 11, i64 22, i64 33, i64 44], align 32
@outside_object = external global i8
declare i64 @outside(i64, ptr)
define internal i64 @inside(i64 %i) noinline {{
  %slot = getelementptr [4 x i64], ptr @table, i64 0, i64 %i
  %value = load i64, ptr %slot
  ret i64 %value
}}
define i64 @entry(i64 %i) {{
  %first = call i64 @inside(i64 %i)
  %second = call i64 @outside(i64 %first, ptr @outside_object)
  %sum = add i64 %second, 1
  ret i64 %sum
}}
"""
TRIPLES = {"x86-64": "x86_64-unknown-linux-gnu", "aarch64": "aarch64-unknown-linux-gnu"}


def emit(source, machine):
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    target = llvm.Target.from_triple(TRIPLES[machine])
    options = {"opt": 2, "reloc": "pic", "codemodel": "small"}
    module = llvm.parse_assembly(source.format(triple=TRIPLES[machine]))
    return target.create_target_machine(**options).emit_object(module)


def words(code, start, count):
    return struct.unpack_from(f"<{count}I", code, start)


def signed(value, bits):
    return value - (1 << bits) if value >> (bits - 1) else value


def aarch64_pages(code, at):
    """Return the address that an adrp makes with the next add or ldr on the same register."""
    (word,) = words(code, at, 1)
    assert word & 0x9F000000 == 0x90000000
    page = signed((word >> 5 & 0x7FFFF) << 2 | word >> 29 & 3, 21)
    for later in range(at + 4, at + 24, 4):
        (other,) = words(code, later, 1)
        if other >> 5 & 31 == word & 31 and (other & 0xFFC00000 in (0x91000000, 0xF9400000)):
            scale = 8 if other >> 24 == 0xF9 else 1
            return ((at >> 12) + page << 12) + (other >> 10 & 0xFFF) * scale
    raise AssertionError("nothing uses the page")


def test_aarch64_references_reach_their_targets():
    image = elf.link(emit(SOURCE, "aarch64"), "entry")
    slots = {name: offset for offset, name in image.imports}
    assert sorted(slots) == ["outside", "outside_object"]
    table = image.code.index(struct.pack("<4q", 11, 22, 33, 44))
    pages = [
        aarch64_pages(image.code, at) for at in range(0, table, 4) if words(image.code, at, 1)[0] >> 24 & 0x9F == 0x90
    ]
    assert set(pages) == {table, slots["outside_object"]}
    calls = []
    for at in range(0, table, 4):
        (word,) = words(image.code, at, 1)
        if word >> 26 == 0b100101:
            calls.append(at + 4 * signed(word & 0x3FFFFFF, 26))
    stub = slots["outside"] + 8
    assert len(calls) == 2 and stub in calls
    load, jump = words(image.code, stub, 2)
    assert load & 0xFF00001F == 0x58000010 and stub + 4 * signed(load >> 5 & 0x7FFFF, 19) == slots["outside"]
    assert jump == 0xD61F0200  # br x16


def test_x86_64_references_reach_their_targets():
    image = elf.link(emit(SOURCE, "x86-64"), "entry")
    slots = {name: offset for offset, name in image.imports}
    assert sorted(slots) == ["outside", "outside_object"]
    table = image.code.index(struct.pack("<4q", 11, 22, 33, 44))
    relative = {at + 4 + struct.unpack_from("<i", image.code, at)[0] for at in range(image.entry, table - 3)}
    assert table in {at + 4 + struct.unpack_from("<i", image.code, at)[0] for at in range(table - 3)}
    assert slots["outside_object"] in relative
    stub = slots["outside"] + 8
    assert stub in relative
    assert image.code[stub : stub + 2] == b"\xff\x25"  # jmp through an address relative to the next instruction
    assert stub + 6 + struct.unpack_from("<i", image.code, stub + 2)[0] == slots["outside"]


def test_slots_are_aligned_and_hold_nothing_yet():
    for machine in TRIPLES:
        image = elf.link(emit(SOURCE, machine), "entry")
        for offset, _ in image.imports:
            assert offset % 8 == 0 and image.code[offset : offset + 8] == bytes(8)


WRITABLE = """
target triple = "{triple}"
@counter = internal global i64 5
define i64 @entry() {{
  %old = load i64, ptr @counter
  %new = add i64 %old, 1
  store i64 %new, ptr @counter
  ret i64 %new
}}
"""
POINTERS = """
target triple = "{triple}"
@text = internal constant [2 x i8] c"a\\00"
@pointers = internal constant [2 x ptr] [ptr @text, ptr @entry]
define ptr @entry(i64 %i) {{
  %slot = getelementptr [2 x ptr], ptr @pointers, i64 0, i64 %i
  %value = load ptr, ptr %slot
  ret ptr %value
}}
"""


@pytest.mark.parametrize("machine", TRIPLES)
@pytest.mark.parametrize("source", [WRITABLE, POINTERS])
def test_data_that_would_need_a_linker_is_refused(source, machine):
    with pytest.raises(elf.LinkError, match="writable data"):
        elf.link(emit(source, machine), "entry")


def test_a_missing_entry_is_refused():
    with pytest.raises(elf.LinkError, match="no function other"):
        elf.link(emit(SOURCE, "x86-64"), "other")


@pytest.mark.parametrize("change", [(4, b"\x01"), (5, b"\x02"), (16, b"\x03"), (18, b"\x28")])
def test_other_objects_are_refused(change):
    data = bytearray(emit(SOURCE, "x86-64"))
    data[change[0] : change[0] + 1] = change[1]
    with pytest.raises(elf.LinkError, match="not a 64-bit"):
        elf.link(bytes(data), "entry")


def relocation(kind, machine="aarch64", addend=0):
    """Return an object of one instruction with one relocation against its own section."""
    data = bytearray(emit(SOURCE, machine))
    (entries,) = (s.data() for s in llvm.ObjectFileRef.from_data(bytes(data)).sections() if s.name() == b".rela.text")
    start = data.index(entries)
    offset, info, _ = struct.unpack_from("<QQq", data, start)
    struct.pack_into("<QQq", data, start, offset, info & ~0xFFFFFFFF | kind, addend)
    return bytes(data)


@pytest.mark.parametrize(("machine", "kind"), [("x86-64", 1), ("x86-64", 24), ("aarch64", 257), ("aarch64", 999)])
def test_unknown_relocations_are_refused(machine, kind):
    with pytest.raises(elf.LinkError, match=f"relocation {kind}"):
        elf.link(relocation(kind, machine), "entry")


@pytest.mark.parametrize(("kind", "addend"), [(283, 1 << 28), (275, 1 << 33), (274, 1 << 21), (261, 1 << 32)])
def test_references_that_reach_too_far_are_refused(kind, addend):
    with pytest.raises(elf.LinkError, match="distance"):
        elf.link(relocation(kind, addend=addend), "entry")
