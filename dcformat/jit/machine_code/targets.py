"""The kinds of machine that code is made for: exactly this machine, or a baseline that many machines share."""

from __future__ import annotations

from collections.abc import Iterator

from dcformat.jit import cpuinfo
from dcformat.records import record


@record
class Target:
    """A kind of machine that any machine can compile for: LLVM's names, and the features that Linux must list."""

    machine: str
    triple: str
    cpu: str
    needs: frozenset[str]


_V2 = frozenset({"cx16", "lahf_lm", "popcnt", "ssse3", "sse4_1", "sse4_2"})
_V3 = _V2 | frozenset({"abm", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"})
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}

#: Best first.
TARGETS = {
    "x86-64-v4": Target("x86_64", "x86_64-unknown-linux-gnu", "x86-64-v4", _V4),
    "x86-64-v3": Target("x86_64", "x86_64-unknown-linux-gnu", "x86-64-v3", _V3),
    "x86-64-v2": Target("x86_64", "x86_64-unknown-linux-gnu", "x86-64-v2", _V2),
    "aarch64": Target("aarch64", "aarch64-unknown-linux-gnu", "generic", frozenset({"asimd", "fp"})),
}


def targets() -> Iterator[str]:
    """Yield the targets that this machine runs: exactly this machine, then those of `TARGETS`, best first."""
    here = cpuinfo.identity()
    if here is None:
        return
    yield here
    for name, target in TARGETS.items():
        if target.machine == here.partition(" ")[0] and target.needs <= cpuinfo.features():
            yield name
