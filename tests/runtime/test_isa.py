"""Tests the table of the instruction set, and how the kernels and the compiler use it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from dcformat_runtime import isa
from dcformat_runtime.kernels import products, tiles
from dcformat_runtime.kernels.simd_widths import (
    COLUMN_WIDTHS,
    HALF_CASES,
    HALF_WIDTHS,
    PLANE_BLOCKS,
    PLANE_LINES,
    POOL_WIDTHS,
    ROW_BLOCK_POSITIONS,
    TILE_QUADS,
    WIDTHS,
)

_KERNELS = Path(products.__file__).parent


def _constants() -> dict[str, int]:
    return {
        f"{opcode}_{field}".upper(): 4 + place
        for opcode, fields in isa.FIELDS.items()
        for place, field in enumerate(fields)
    }


def _read() -> set[str]:
    """Return the names of the instruction set that the sources of the kernels read."""
    return {
        node.attr
        for path in _KERNELS.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "isa"
    }


def test_every_field_has_a_constant_of_its_own() -> None:
    names = [*_constants(), *(opcode.upper() for opcode in isa.FIELDS)]
    assert len(names) == len(set(names))
    assert {name: getattr(isa, name) for name in _constants()} == _constants()
    assert [getattr(isa, opcode.upper()) for opcode in isa.FIELDS] == list(range(len(isa.FIELDS)))
    assert isa.RECORD_WIDTH == 29


def test_kernels_read_every_field_by_its_name() -> None:
    # The rest of a `permute` runs as a `sell16_product`, whose fields come first in its record.
    first = {f"PERMUTE_{field}".upper() for field in isa.FIELDS["sell16_product"]}
    assert set(_constants()) - _read() <= first
    assert all(hasattr(isa, name) for name in _read())
    assert isa.FIELDS["permute"][:10] == isa.FIELDS["sell16_product"]


def test_a_record_takes_exactly_the_fields_of_its_opcode() -> None:
    assert isa.record("add", 7, 8, 9, {"count": 5, "second": 6, "bounds": 1}) == [isa.ADD, 7, 8, 9, 6, 5, 1]
    with pytest.raises(TypeError, match="add: expected the fields"):
        isa.record("add", 0, 0, 0, {"count": 5})
    with pytest.raises(KeyError):
        isa.record("add", 0, 0, 0, {"count": 5, "second": 6, "gap": 1})


def test_kernels_choose_among_the_widths_that_are_compiled() -> None:
    for left in range(1, 40):
        assert products.column_width(left) == max(w for w in COLUMN_WIDTHS if w <= left)
        for max_blocks in (1, 2, 3, 6, 12, 16, 28):
            pieces = -(-left // max_blocks)
            assert products.whole_width(left, max_blocks) == max(w for w in WIDTHS if w <= -(-left // pieces))
            assert products.half_width(left, max_blocks) == max(
                w for w in HALF_WIDTHS if w <= min(left, 2 * max_blocks)
            )
        for max_blocks in (4, 8, 12, 16, 24):
            if left >= 4:
                assert products.pool_width(left, max_blocks) == max(
                    w for w in POOL_WIDTHS if w <= min(left, max_blocks)
                )
    for left in range(1, 10):
        for max_blocks in (1, 6):
            assert tiles.tile_blocks(left, max_blocks) == max(k for k in TILE_QUADS if k <= min(left, max_blocks))
    assert all(tiles.tile_quads(k, 6) == quads and tiles.tile_quads(k, 1) == 1 for k, quads in TILE_QUADS.items())
    for left in range(1, 60):
        for max_blocks in (2, 6, 13):
            k = tiles.row_block_positions(left, max_blocks)
            assert k == max(n for n in ROW_BLOCK_POSITIONS if n <= -(-left // -(-left // max_blocks)))
    for left in range(1, 20):
        assert tiles.plane_lines(left) in PLANE_LINES and tiles.plane_lines(left) <= left
        for max_blocks in (1, 4):
            assert tiles.plane_blocks(left, max_blocks) == max(k for k in PLANE_BLOCKS if k <= min(left, max_blocks))
    assert len(HALF_CASES) == len(set(HALF_CASES)) == 2 * 6 + 5 + 2
