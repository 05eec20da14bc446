"""The compiled form of the helpers with which threads share a call; `simd` says what they do."""

from __future__ import annotations

from typing import Any

from numba import types

from dcformat_runtime.kernels import control as words
from dcformat_runtime.kernels.control import MAX_PIECES
from dcformat_runtime.kernels.simd_writer import I64, Writer, helper, i64


def _look(w: Writer, control: Any, at: Any) -> Any:
    return w.b.load_atomic(w.at(control, at, 1, I64), "acquire", 8)


def publish() -> Any:
    """Write `simd.publish`."""

    def write(w: Writer, control: Any, at: Any, value: Any) -> None:
        w.b.store_atomic(value, w.at(control, at, 1, I64), "release", 8)

    return helper("Aii", types.void, write)


def claim() -> Any:
    """Write `simd.claim`."""

    def write(w: Writer, control: Any, at: Any, pieces: Any, generation: Any) -> Any:
        first, limit = w.b.mul(generation, i64(MAX_PIECES)), w.load(control, pieces, I64)
        seen, found = w.variables(2, I64)
        w.b.store(_look(w, control, at), seen)
        again, attempt, end = (w.b.append_basic_block(name) for name in ("again", "attempt", "end"))
        w.b.branch(again)
        w.b.position_at_end(again)
        piece = w.b.sub(w.b.load(seen), first)
        # The comparison is unsigned, because pieces of an earlier generation are below 0.
        w.b.store(i64(-1), found)
        w.b.cbranch(w.b.icmp_unsigned("<", piece, limit), attempt, end)
        w.b.position_at_end(attempt)
        before = w.b.load(seen)
        both = w.b.cmpxchg(w.at(control, at, 1, I64), before, w.plus(before, 1), "acq_rel", "acquire")
        w.b.store(w.b.extract_value(both, 0), seen)
        w.b.store(piece, found)
        w.b.cbranch(w.b.extract_value(both, 1), end, again)
        w.b.position_at_end(end)
        return w.b.load(found)

    return helper("Aiii", types.int64, write)


def claim_next() -> Any:
    """Write `simd.claim_next`."""

    def write(w: Writer, control: Any, generation: Any) -> Any:
        first, claims = w.b.mul(generation, i64(MAX_PIECES)), i64(words.CLAIM)
        limit, parts, patience = (w.load(control, i64(at), I64) for at in (words.PIECES, words.PARTS, words.PATIENCE))
        found, looks = w.variables(2, I64)
        w.b.store(i64(0), looks)
        names = ("look", "wait", "check", "attempt", "claimed", "none", "end")
        look, wait, check, attempt, claimed, none, end = (w.b.append_basic_block(name) for name in names)
        w.b.branch(look)
        w.b.position_at_end(look)
        seen = _look(w, control, claims)
        piece = w.b.sub(seen, first)
        # The comparison is unsigned, because pieces of an earlier generation are below 0.
        w.b.cbranch(w.b.icmp_unsigned("<", piece, limit), check, none)
        w.b.position_at_end(check)
        before = w.b.sub(piece, w.b.urem(piece, parts))
        ready = w.b.icmp_signed(">=", _look(w, control, i64(words.DONE)), before)
        w.b.cbranch(ready, attempt, wait)
        w.b.position_at_end(wait)
        w.b.store(w.plus(w.b.load(looks), 1), looks)
        w.b.cbranch(w.b.icmp_signed("<", w.b.load(looks), patience), look, none)
        w.b.position_at_end(attempt)
        both = w.b.cmpxchg(w.at(control, claims, 1, I64), seen, w.plus(seen, 1), "acq_rel", "acquire")
        w.b.cbranch(w.b.extract_value(both, 1), claimed, look)
        w.b.position_at_end(claimed)
        w.b.store(piece, found)
        w.b.branch(end)
        w.b.position_at_end(none)
        w.b.store(i64(-1), found)
        w.b.branch(end)
        w.b.position_at_end(end)
        return w.b.load(found)

    return helper("Ai", types.int64, write)


def finish() -> Any:
    """Write `simd.finish`."""

    def write(w: Writer, control: Any, at: Any) -> None:
        w.b.atomic_rmw("add", w.at(control, at, 1, I64), i64(1), "acq_rel")

    return helper("Ai", types.void, write)


def await_least() -> Any:
    """Write `simd.await_least`."""

    def write(w: Writer, control: Any, at: Any, least: Any, looks: Any) -> Any:
        (done,) = w.variables(1, I64)
        w.b.store(i64(0), done)
        look, again, end = (w.b.append_basic_block(name) for name in ("look", "again", "end"))
        w.b.branch(look)
        w.b.position_at_end(look)
        w.b.cbranch(w.b.icmp_signed(">=", _look(w, control, at), least), end, again)
        w.b.position_at_end(again)
        w.b.store(w.plus(w.b.load(done), 1), done)
        w.b.cbranch(w.b.icmp_signed("<", w.b.load(done), _look(w, control, looks)), look, end)
        w.b.position_at_end(end)
        return w.b.zext(w.b.icmp_signed(">=", _look(w, control, at), least), I64)

    return helper("Aiii", types.int64, write)
