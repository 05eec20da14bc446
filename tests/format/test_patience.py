"""The work that Python does before kernels are compiled is counted from a call's arguments and never timed."""

from __future__ import annotations

import numpy as np
import pytest
from dcformat_cli import compiling

from dcformat import jit
from dcformat.jit import abi
from tests.jit.processes import run

#: The arguments do not show how long these kernels take: they run any program, or wait for other threads.
UNTOLD = {
    f"dcformat_runtime.kernels.{name}"
    for name in ("interpreter.run", "interpreter.wait", "integer_kernel.run_integers")
}

needs_machine_code = pytest.mark.skipif(not abi.layout_known(), reason="machine code is not kept on this platform")


def test_every_kernel_states_its_work() -> None:
    assert {kernel.name for kernel in compiling.all_kernels() if kernel.work is None} == UNTOLD


def test_work_is_counted_from_the_arguments_it_names() -> None:
    def work(count: int, values: np.ndarray) -> int:
        return 3 * count + len(values)

    @jit.kernel("int64(const int64[::1], int64, int64)", work=work)
    def spin(values, other, count):
        return values[0] + other + count

    assert spin.work is not None
    assert spin.work((np.zeros(5), 100, 7)) == 26
    # NumPy's integers would wrap around, so that a file could claim that there is no work.
    assert spin.work((np.zeros(5), 0, np.int64(1 << 62))) == 3 * (1 << 62) + 5
    assert spin.work((np.zeros(5), 100)) is None


def test_work_that_depends_on_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match=r"work: expected some of \('n',\), found \['m'\]"):
        jit.kernel("int64(int64)", work=lambda m: m)(lambda n: n)


SPEND = """
import json, sys
from dcformat import jit
kernels = [jit.Kernel((lambda k: lambda n: n + k)(k), "int64(int64)", work=lambda n: n) for k in range(5)]
out = []
def say(k, n):
    out.append([kernels[k](n) - n, kernels[k].state])
say(0, jit.SHARE - 1)
say(1, jit.SHARE + 1)  # at once
say(0, 1)
say(0, 1)
say(2, jit.SHARE)
say(3, jit.SHARE)
say(4, 1)  # nothing is left
print(json.dumps(out))
"""


@needs_machine_code
def test_only_calls_that_fit_the_budget_run_in_python(tmp_path) -> None:
    assert jit.PATIENCE == 3 * jit.SHARE == 1_500_000
    assert run(tmp_path, SPEND) == [
        [0, "unresolved"], [1, "compiled"], [0, "unresolved"], [0, "compiled"],
        [2, "unresolved"], [3, "unresolved"], [4, "compiled"],
    ]  # fmt: skip


@needs_machine_code
def test_a_process_that_can_save_nothing_runs_more_in_python(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    script = """
import json
from dcformat import jit
class Told(jit.Observer):
    warnings = 0
    def unsaved(self, reason):
        Told.warnings += 1
jit.observe(Told())
kernels = [jit.Kernel((lambda k: lambda n: n + k)(k), "int64(int64)", work=lambda n: n) for k in range(5)]
for k, n in [(0, jit.UNSAVED_PATIENCE + 1), (1, jit.UNSAVED_PATIENCE - 1), (2, 1), (3, 1)]:
    kernels[k](n)
print(json.dumps([[kernel.state for kernel in kernels], Told.warnings]))
"""
    states = ["compiled", "unresolved", "unresolved", "compiled", "unresolved"]
    assert jit.UNSAVED_PATIENCE == 12_000_000
    assert run(tmp_path / "file", script) == [states, 1]


def test_without_a_compiler_python_runs_on(tmp_path) -> None:
    hidden = "import sys; sys.modules['numba'] = None\n" + SPEND
    assert run(tmp_path, hidden) == [[k, "python"] for k in (0, 1, 0, 0, 2, 3, 4)]


LARGE = """
import json
import numpy as np
from dcformat import jit
from dcformat.codecs import adaptive, mixing
from dcformat.codecs.alphabet import Alphabet
from dcformat.codecs.rangecoder import Decoder

class Compiling(Exception):
    pass

class Stop(jit.Observer):
    def compiling(self, kernel, number, saved):
        raise Compiling(kernel)

jit.observe(Stop())
cases = [
    lambda data: mixing.decode(data(bytes(4)), 1 << 10, 1 << 8, 1, Alphabet(2, 1)),
    lambda data: mixing.decode(data(bytes(4)), 1, 1 << 18, 1, Alphabet(2, 1)),
    lambda data: adaptive.decode(data(bytes([0, 0, 0, 0])), 1 << 10, 1 << 9, 5, Alphabet(2, 1)),
    lambda data: adaptive.decode(data(bytes([255, 0, 0, 0])), 1 << 13, 1 << 13, 5, Alphabet(2, 1)),
]
out = []
for case in cases:
    try:
        case(lambda head: Decoder(np.frombuffer(head, np.uint8)))
        out.append("ran")
    except Compiling as found:
        out.append(str(found).removeprefix("dcformat.codecs."))
print(json.dumps(out))
"""


@needs_machine_code
def test_a_few_bytes_that_mean_millions_of_decisions_are_not_decoded_in_python(tmp_path) -> None:
    assert run(tmp_path, LARGE) == [
        "mixing_kernels.decode_cells", "nonempty_kernels.decode_nonempty",
        "adaptive_kernels.decode_cells", "adaptive_kernels.decode_runs",
    ]  # fmt: skip


COUNT = """
import json, sys
import numpy as np
import dcformat
from dcformat import jit
from dcformat.codecs import adaptive, index, mixing, payload_writer, scattering
from dcformat.codecs.alphabet import Alphabet
from dcformat.codecs.rangecoder import Decoder

lines, found = 0, {}

def trace(frame, event, _):
    global lines
    lines += event == "line"
    return trace

def counted(kernel, name, function):
    def call(*args):
        global lines
        lines, steps = 0, kernel.work(args)
        sys.settrace(trace)
        try:
            return function(*args)
        finally:
            sys.settrace(None)
            found[name] = max(found.get(name, 0), lines / steps)
    return call

for kernel in jit.kernels():
    kernel.python = counted(kernel, kernel.name, kernel.python)

random = np.random.default_rng(0)
codebook = random.normal(0, 1, 300).astype(np.float32)
def sparse(shape, density, count):
    values = codebook[random.integers(0, count, shape)] if count else random.normal(0, 1, shape).astype(np.float32)
    return np.where(random.random(shape) < density, values, np.float32(0))
weights = [
    sparse((10, 12), 0.2, 8), sparse((9, 8), 0.4, 300), sparse((6, 7), 0.5, 0), sparse((9, 9), 1, 16),
    sparse((4, 7), 1, 0), sparse((60, 2), 0.1, 4), sparse((2, 60), 0.1, 4), sparse((20, 20), 0.01, 4),
    (random.integers(-9000, 9000, 30) * np.float32(0.125)).astype(np.float32),
]
# Planes of bytes and their tables pay only for many elements, whose decisions would take minutes in the other modes.
large = [random.normal(size=(40, 60)).astype(kind) for kind in (np.float32, np.float16)]
files = [(weight, mode) for weight in weights for mode in ("fast", "tiny")] + [(weight, "fast") for weight in large]
for weight, mode in files:
    dcformat.save(dcformat.Model({"w": dcformat.from_dense("w", weight)}), PATH, mode=mode)
    assert np.array_equal(dcformat.load(PATH).tensors["w"].to_dense(), weight)
walk = np.cumsum(random.integers(-5, 6, (6, 40)), axis=1).astype(np.int8)
dcformat.save(dcformat.Model({"w": dcformat.from_dense("w", walk, "int8", 1.0, exact=True)}), PATH, mode="tiny")
assert np.array_equal(dcformat.load(PATH).tensors["w"].to_dense(), walk)
for coder in (adaptive, mixing):
    for shape in ((20, 20), (500, 1), (1, 500)):
        for head in (0, 0x55, 0xFF):
            decoder = Decoder(np.frombuffer(bytes([head]) * 6, np.uint8))
            try:
                coder.decode(decoder, *shape, 3, Alphabet(2, 1))
            except dcformat.FormatError:
                pass
index.place64(np.array([5, 900, 2]), 3, 1000, 3, 400, np.zeros(401, np.int64), np.zeros(3, np.int64))
indptr, indices = np.array([0, 2, 2, 3]), np.array([0, 8, 2], np.int32)
for kind in ("u1", "u2", "u4", "u8"):
    index.transpose(indptr, indices, np.arange(3, dtype=kind), 9)
# Without a compiler, NumPy does the work of these.
for kernel in jit.kernels():
    if kernel.__name__.startswith("_scatter"):
        kind = f"u{int(kernel.__name__.removeprefix('_scatter')) // 8}"
        assert kernel(indptr, indices, np.arange(3, dtype=kind), 0, 9, 0, np.empty(27, kind))
print(json.dumps(found))
"""


@pytest.mark.slow
def test_no_call_takes_more_lines_of_python_than_its_work_allows(tmp_path) -> None:
    """A step is a microsecond, in which Python runs at most eight lines."""
    script = COUNT.replace("PATH", repr(str(tmp_path / "w")))
    found = run(tmp_path, script, NUMBA_DISABLE_JIT="1")
    named = {kernel.name for kernel in compiling.all_kernels() if kernel.name.startswith("dcformat.codecs.")}
    # Kernels for large tensors and fillers, and one that the text coder itself calls as Python.
    seldom = {"read_four", "runs64", "place64", "fill", "unfill", "_text"}
    assert {name.rpartition(".")[2] for name in named - set(found)} <= seldom
    assert {name: ratio for name, ratio in found.items() if ratio > 8} == {}
