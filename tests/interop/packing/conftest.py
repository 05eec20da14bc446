"""Packings whose units are small."""

from __future__ import annotations

from typing import Any

import pytest
from dcformat_interop.packing import units

from dcformat.codecs import Mode


@pytest.fixture
def separately(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make each tensor a separate unit."""
    divide = units.divided

    def divided(elements: Any, mode: Mode) -> Any:
        for each in elements:
            yield from divide([each], mode)

    monkeypatch.setattr("dcformat_interop.packing.checkpoint_packing.divided", divided)
