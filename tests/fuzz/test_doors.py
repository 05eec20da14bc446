"""A few hundred executions of every door of the fuzzers, always the same ones."""

from __future__ import annotations

import os
from functools import cache

import pytest

from fuzz import container
from fuzz.doors import all_doors
from fuzz.guard import Guard
from fuzz.main import Inputs
from fuzz.seeds import seeds

#: The tests run each door of the fuzzers for a while.
pytestmark = pytest.mark.slow

#: Doors whose executions take milliseconds are tried less often.
_SLOW = {"cli": 30, "cli-pack": 15, "npy": 30, "pt": 40, "reference": 60, "rewrite": 60}
_COMPILED = os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0")


@cache
def guard() -> Guard:
    """A guard in a process where kernels may not be compiled yet."""
    return Guard(100.0)


@pytest.mark.parametrize("name", all_doors())
def test_no_door_has_findings(name: str) -> None:
    inputs, door = Inputs([name], None), all_doors()[name]
    count = _SLOW.get(name, 250)
    outcomes = set()
    for index in range(count if _COMPILED else min(count, 30)):
        _, data = inputs.make(1, index)
        outcome, finding = guard().run(door, data, measure=index % 8 == 7)
        assert finding is None, f"execution {index}: {finding}"
        outcomes.add(outcome)
    assert len(outcomes) > 1


def test_a_seed_and_a_number_identify_an_input() -> None:
    first, second = Inputs([], None), Inputs([], None)
    assert [first.make(3, index) for index in range(200)] == [second.make(3, index) for index in range(200)]


def test_a_file_taken_apart_and_built_again_is_the_same() -> None:
    raw, files = seeds()
    same = sum(container.parse(data).build() == data for data in raw if _parses(data))
    assert same > 0.95 * len(files)


def _parses(data: bytes) -> bool:
    try:
        container.parse(data)
    except container.ParseError:
        return False
    return True
