"""Counts agree with their nouns."""

from __future__ import annotations

from dcformat.wording import counted


def test_counts_have_nouns_in_the_right_number() -> None:
    assert counted(0, "tensor") == "0 tensors"
    assert counted(1, "tensor") == "1 tensor"
    assert counted(1, "entry", "entries") == "1 entry"
    assert counted(12_345, "entry", "entries") == "12,345 entries"
