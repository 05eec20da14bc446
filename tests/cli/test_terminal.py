"""Text for people: aligned, and without anything that a terminal would act upon."""

from __future__ import annotations

import pytest
from dcformat_cli.options import numbers, size
from dcformat_cli.terminal import Table, printable
from hypothesis import given
from hypothesis import strategies as st


@given(st.text())
def test_printable_text_is_one_harmless_line(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    shown.encode()
    if text.isprintable():
        assert shown == text


def test_a_table_is_aligned() -> None:
    table = Table("title", ("name", "bytes"), [("a", "1"), ("long name", "1,000"), ("sum", "1,001")], total=True)
    assert table.lines() == [
        "title",
        "  name       bytes",
        "  ----------------",
        "  a              1",
        "  long name  1,000",
        "  ----------------",
        "  sum        1,001",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1", 1), ("4096", 4096), ("1k", 1024), ("1.5M", 3 << 19), ("2GiB", 2 << 30), ("3 TB", 3 << 40)],
)
def test_sizes(text: str, expected: int) -> None:
    assert size(text) == expected


def test_numbers() -> None:
    assert numbers("0.5") == (0.5,)
    assert numbers("1,-2.5, 3e1") == (1, -2.5, 30)
