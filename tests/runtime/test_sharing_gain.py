"""Tests which calls threads share, for calls that gain from it and calls that do not."""

from __future__ import annotations

from collections.abc import Callable

from dcformat_runtime.sharing_gain import SharingGain


def calls(number: int, shared_seconds: Callable[[int], float], alone_seconds: float = 1.0) -> str:
    """Make calls and return them: S for shared ones, and A for those that ran alone."""
    gain, made = SharingGain(), ""
    for call in range(number):
        if gain.is_next_shared():
            gain.add_shared(shared_seconds(call))
            made += "S"
        else:
            gain.add_alone(alone_seconds)
            made += "A"
    return made


def test_calls_that_gain_are_shared_but_for_one_in_64() -> None:
    assert calls(133, lambda call: 0.6) == "SA" + "S" * 64 + "A" + "S" * 64 + "AS"


def test_calls_that_gain_nothing_run_alone_for_longer_and_longer() -> None:
    assert calls(162, lambda call: 0.96) == "SA" + "SSS" + "A" * 4 + "SSS" + "A" * 16 + ("SSS" + "A" * 64) * 2


def test_a_gain_ends_a_row_of_losses() -> None:
    assert calls(40, lambda call: 0.9 if call % 3 == 0 else 2.0) == "SA" + "S" * 38


def test_calls_are_compared_with_the_last_one_that_ran_alone() -> None:
    """If the machine becomes free, sharing that took as long as a call alone is not given up."""
    gain = SharingGain()
    gain.add_alone(1.0)
    gain.add_alone(3.0)
    for _ in range(5):
        gain.add_shared(2.0)
    assert not gain.is_next_shared()  # the first shared call is followed by one alone
    gain.add_alone(3.0)
    assert gain.is_next_shared()
