"""Tests the worker pool: every piece is done once, errors reach the caller, and no thread remains."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from dcformat_runtime import isa, placement, worker_pool
from dcformat_runtime.kernels import control as words
from dcformat_runtime.kernels import images, interpreter, simd
from dcformat_runtime.network_engine import KernelEngine
from dcformat_runtime.session import Session
from dcformat_runtime.worker_pool import WorkerPool

import dcformat
from tests.runtime.example_networks import inputs, lenet


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    made = WorkerPool()
    yield made
    made.close()


class _Work:
    """Counts the pieces, which it claims as the kernel does."""

    def __init__(self, pool: WorkerPool, fails: str = "") -> None:
        self.control, self.fails = pool.control, fails
        self.done: list[tuple[int, str]] = []
        self.helped = threading.Event()

    def __call__(self, generation: int) -> int:
        who = "worker" if generation > 0 else "caller"
        if generation < 0:
            simd.publish(self.control, words.CLAIM, -generation * words.MAX_PIECES)
            if self.fails != "caller":
                self.helped.wait(60)
        mine = 0
        while (piece := simd.claim(self.control, words.CLAIM, words.PIECES, abs(generation))) >= 0:
            self.helped.set()
            if who == self.fails:
                raise RuntimeError(f"the {who} fails")
            self.done.append((piece, who))
            simd.finish(self.control, words.DONE)
            mine += 1
        self.helped.set()
        return mine


def test_every_piece_is_done_once(pool: WorkerPool) -> None:
    for helpers in (1, 3, 2):
        for pieces in (1, 2, 7, 100):
            work = _Work(pool)
            pool.share(work, pieces, helpers)
            assert Counter(piece for piece, _ in work.done) == Counter(range(pieces))
            assert "worker" in {who for _, who in work.done}


@pytest.mark.parametrize("who", ["worker", "caller"])
def test_errors_reach_the_caller(who: str) -> None:
    session = Session.from_model(lenet().model(), backend="numba", threads=2)
    x = inputs(lenet().network(), 200)
    expected = session(x)
    before = worker_pool.current()
    with pytest.raises(RuntimeError, match=f"the {who} fails"):
        before.share(_Work(before, who), 5000, 2)
    assert worker_pool.current() is not before
    assert np.array_equal(session(x), expected)


def test_a_generation_that_is_over_has_no_pieces() -> None:
    control = np.zeros(words.WIDTH, np.int64)
    control[words.PIECES] = 2
    simd.publish(control, words.CLAIM, 5 * words.MAX_PIECES)
    assert [simd.claim(control, words.CLAIM, words.PIECES, generation) for generation in (4, 5, 6, 5, 5, 5)] == [
        -1,
        0,
        -1,
        1,
        -1,
        -1,
    ]


def test_parts_of_an_operator_wait_for_the_operator_before() -> None:
    control = np.zeros(words.WIDTH, np.int64)
    control[words.PIECES], control[words.PARTS] = 4, 2
    simd.publish(control, words.CLAIM, 3 * words.MAX_PIECES)
    assert [simd.claim_next(control, 3) for _ in range(3)] == [0, 1, -1]
    simd.finish(control, words.DONE)
    assert simd.claim_next(control, 3) == -1
    simd.finish(control, words.DONE)
    assert [simd.claim_next(control, generation) for generation in (2, 3, 4, 3, 3)] == [-1, 2, -1, 3, -1]


def test_a_late_worker_reads_nothing_of_the_program_of_a_later_call() -> None:
    control, x = np.zeros(words.WIDTH, np.int64), np.zeros((1, 1), np.float32)
    control[words.MODE], control[words.PLAN] = words.TOGETHER, 1 << 44  # a place in the program of the later call
    control[words.PIECES] = control[words.PARTS] = 2
    simd.publish(control, words.CLAIM, 2 * words.MAX_PIECES)
    assert interpreter.run(x, x.copy(), np.zeros(64, np.float32), np.zeros(64, np.float32), control, 1) == 0


def test_a_call_of_too_many_pieces_is_not_shared() -> None:
    engine = KernelEngine(lenet().network(), 2, False, hand_over=1.0)
    size, threads = engine.cut(64 * words.MAX_PIECES - 64)
    assert (size, threads) == (64, 2)
    assert engine.cut(64 * words.MAX_PIECES)[1] == 1


def test_a_late_worker_finds_no_pieces(pool: WorkerPool) -> None:
    pool.share(_Work(pool), 2, 1)
    pool.control[words.PIECES] = 100  # as the next generation sets it, before it begins
    assert simd.claim(pool.control, words.CLAIM, words.PIECES, 1) == -1
    assert simd.claim_next(pool.control, 1) == -1


def test_one_caller_at_a_time_is_helped(pool: WorkerPool) -> None:
    assert pool.take()
    assert not pool.take()
    pool.give()
    assert pool.take()


def test_workers_that_gain_nothing_are_skipped_for_a_while(pool: WorkerPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "thread_time", lambda: 0.0)  # on one thread, it would have taken no time
    for _ in range(worker_pool.LOSSES):
        assert pool.take()
        pool.share(_Work(pool), 4, 1)
        pool.give()
    assert not pool.take()
    assert any(pool.take() for _ in range(worker_pool.MAX_SKIPPED))


_PROGRAM = """
import sys
import numpy as np
import dcformat
from dcformat_runtime.network_engine import KernelEngine
from dcformat_runtime.network import lower
engine = KernelEngine(lower(dcformat.load(sys.argv[1])), 3, False, hand_over=1.0)
x = np.ones((500, 144), np.float32)
for _ in range(5):
    engine.run(x)
print("done")
"""


def test_the_interpreter_ends(tmp_path: Path) -> None:
    path = tmp_path / "net.dcf"
    dcformat.save(lenet().model(), path)
    found = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, timeout=600, check=True,
    )  # fmt: skip
    assert (found.stdout, found.stderr) == ("done\n", "")


def test_concurrent_callers() -> None:
    network = lenet().network()
    engine = KernelEngine(network, 3, False, hand_over=1.0)
    x = inputs(network, 200)
    expected = KernelEngine(network, 1, False).run(x)
    wrong: list[int] = []

    def call(number: int) -> None:
        for start in range(0, 60, 10):
            if not np.allclose(engine.run(x[start:]), expected[start:], atol=1e-5):
                wrong.append(number)

    threads = [threading.Thread(target=call, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_same_bits_without_help() -> None:
    worker_pool.renew()
    network = lenet().network()
    engine = KernelEngine(network, 2, False, hand_over=1.0)
    x = inputs(network, 64)
    expected = engine.run(x)
    assert worker_pool.current().take()
    assert np.array_equal(engine.run(x), expected)
    worker_pool.renew()


@pytest.mark.parametrize(("kernel", "stride", "pad"), [(2, 2, 0), (3, 2, 1), (3, 1, 1), (2, 1, 0)])
@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 6, 7, 8, 9])
def test_part_of_a_pool_writes_nothing_beyond_its_channel(kernel: int, stride: int, pad: int, width: int) -> None:
    """Another thread may have written there already, so not even a line before the last may reach that far."""
    for height in (1, 2, 5):
        lines, columns = ((size - 1) * stride + kernel - 2 * pad for size in (height, width))
        if min(lines, columns) < 1:
            continue
        fields = {
            "channels": 2, "height": lines, "width": columns, "lanes": 1, "kernel_h": kernel, "kernel_w": kernel,
            "stride_h": stride, "stride_w": stride, "pad_h": pad, "pad_w": pad, "out_h": height, "out_w": width,
            "kind": 0, "bounds": isa.UNBOUNDED, "plane": lines * columns, "out_plane": height * width,
        }  # fmt: skip
        mem = np.array(isa.record("pool", 0, 512, 0, fields), np.int32).view(np.float32)
        arena = np.random.default_rng(0).random(2048).astype(np.float32)
        whole, part = arena.copy(), arena.copy()
        images.pool(whole, mem, 0, 0, 512, 0, 1)
        images.pool(part, mem, 0, 0, 512, 0, 2)
        end = 512 + height * width
        assert np.array_equal(part[:end], whole[:end])
        assert np.array_equal(part[end:], arena[end:])


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not place threads")
def test_sleeping_threads_wake_on_other_processors_and_may_then_run_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed, placed = os.sched_getaffinity(0), list[tuple[int, set[int]]]()
    monkeypatch.setattr(os, "sched_setaffinity", lambda thread, processors: placed.append((thread, processors)))
    found = placement.send_away([7])
    if len(allowed) > 1:
        ((thread, processors),) = placed
        assert thread == 7
        assert processors < allowed
        assert len(processors) == len(allowed) - 1
        assert found == allowed
        placement.stay(found)
        assert placed[1:] == [(0, allowed)]
    placed.clear()
    assert placement.send_away([]) == set()
    assert placement.send_away(list(range(len(allowed)))) == set()  # too many for the other processors
    placement.stay(set())
    assert not placed


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not place threads")
def test_workers_may_run_where_the_caller_may(pool: WorkerPool) -> None:
    found: list[set[int]] = []

    class Work(_Work):
        def __call__(self, generation: int) -> int:
            if generation > 0:
                found.append(os.sched_getaffinity(0))
            return super().__call__(generation)

    for _ in range(3):
        pool.share(Work(pool), 3, 1)
    assert found == [os.sched_getaffinity(0)] * 3


def test_workers_that_cannot_be_placed_help_all_the_same(pool: WorkerPool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: int, processors: set[int]) -> None:
        raise PermissionError(thread, processors)

    monkeypatch.setattr(os, "sched_setaffinity", refuse, raising=False)
    for _ in range(3):
        work = _Work(pool)
        pool.share(work, 3, 1)
        assert "worker" in {who for _, who in work.done}
