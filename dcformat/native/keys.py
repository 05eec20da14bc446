"""What saved code belongs to: the kernel as it is written, the machine, and the libraries that compiled it.

Bytecode stands for source: it is there without the source file, costs no reading, and two texts with the same bytecode
compile to the same code. It depends on the Python version, and so, then, does the key.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

from dcformat.native.image import sha256
from dcformat.records import record

#: Changes whenever compiled code must be made anew although kernels are the same: another compiler, entry or file form.
GENERATION = 1

#: What changes the compiler's output, from outside.
_ENVIRONMENT = ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NUMBA_OPT", "NUMBA_ENABLE_AVX")

#: The lines of /proc/cpuinfo that say what a processor can do, on x86-64 and on AArch64.
_CPU_LINES = (
    b"vendor_id", b"cpu family", b"model", b"stepping", b"flags",
    b"CPU implementer", b"CPU architecture", b"CPU variant", b"CPU part", b"Features",
)  # fmt: skip
_CPUINFO = "/proc/cpuinfo"


@record
class Target:
    """A kind of machine that code can be made for elsewhere: LLVM's names, and what Linux must say it has."""

    machine: str
    triple: str
    cpu: str
    needs: frozenset[str]


_V3 = frozenset({"avx2", "fma", "bmi1", "bmi2", "f16c", "movbe", "abm"})
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}

#: Best first.
TARGETS = {
    "x86-64-v4": Target("x86_64", "x86_64-unknown-linux-gnu", "x86-64-v4", _V4),
    "x86-64-v3": Target("x86_64", "x86_64-unknown-linux-gnu", "x86-64-v3", _V3),
    "aarch64": Target("aarch64", "aarch64-unknown-linux-gnu", "generic", frozenset({"asimd", "fp"})),
}

_PLAIN = (bool, int, float, str, bytes, tuple, frozenset, np.generic, type(None))

_known: dict[str, str] = {}
_digests: dict[FunctionType, bytes] = {}


def machine() -> str | None:
    """Return what identifies this machine's processor and instruction sets, or None where nothing tells."""
    if "machine" not in _known:
        try:
            with open(_CPUINFO, "rb", buffering=0) as file:  # noqa: PTH123 - see `store` on pathlib
                first = file.read(16384).partition(b"\n\n")[0]
        except OSError:
            return None
        lines = (line.partition(b":") for line in first.splitlines())
        found = [b"=".join((name.strip(), value.strip())) for name, _, value in lines if name.strip() in _CPU_LINES]
        if not found:
            return None
        _known["machine"] = f"{os.uname().machine} {b' '.join(found).decode('ascii', 'replace')}"
    return _known["machine"]


def compiler() -> str | None:
    """Return the installed compiler's version, found without importing it, or None if there is none."""
    if "compiler" not in _known:
        found = dict(_versions())
        _known["compiler"] = " ".join(f"{name} {found[name]}" for name in sorted(found)) if len(found) == 2 else ""
    return f"{_known['compiler']} numpy {np.__version__}" if _known["compiler"] else None


def _versions() -> Iterator[tuple[str, str]]:
    """Yield name and version of Numba and llvmlite from the names of their metadata folders."""
    for folder in reversed(sys.path):  # the first that is found counts: dict() keeps the last
        try:
            names = os.listdir(folder or ".")  # noqa: PTH208 - a tenth of the time of Path.iterdir
        except OSError:
            continue
        for name in names:
            base, _, rest = name.partition("-")
            if base in ("numba", "llvmlite") and rest.endswith((".dist-info", ".egg-info")):
                yield base, rest.rpartition(".")[0].partition("-")[0]


def targets() -> Iterator[str]:
    """Yield what this machine runs: code for exactly this machine, then for each target of `TARGETS`, best first."""
    here = machine()
    if here is None:
        return
    yield here
    words = set(here.replace("=", " ").split())
    for name, target in TARGETS.items():
        if target.machine == here.partition(" ")[0] and target.needs <= words:
            yield name


def kernel_key(
    target: str,
    function: FunctionType,
    options: object,
    devices: Mapping[FunctionType, Any],
    intrinsics: Mapping[FunctionType, Callable[[], Any]],
) -> bytes:
    """Return the key of a kernel's saved code.

    Parameters
    ----------
    target : str
        One of `targets`.
    function : function
    options : object
        Signature and flags; its `repr` is part of the key.
    devices, intrinsics : mapping
        The functions that are compiled into kernels that call them, and those whose code is made by hand.
    """
    environment = [os.environ.get(name) for name in _ENVIRONMENT] if target not in TARGETS else []
    head = (GENERATION, sys.implementation.cache_tag, target, environment, options)
    return sha256(repr(head).encode() + _Source(devices, intrinsics, _digests).digest(function))


class _Source:
    """Digests of functions with all that is compiled with them."""

    def __init__(
        self,
        devices: Mapping[FunctionType, Any],
        intrinsics: Mapping[FunctionType, Any],
        seen: dict[FunctionType, bytes],
    ) -> None:
        self.devices, self.intrinsics, self.seen = devices, intrinsics, seen

    def digest(self, function: FunctionType) -> bytes:
        """Return the digest of a function, of what it calls, and of the constants that it names."""
        if function not in self.seen:
            self.seen[function] = b"itself"
            parts = [repr(function.__defaults__).encode(), *self._code(function.__code__, function.__globals__)]
            for cell in function.__closure__ or ():
                parts.append(self._value(cell.cell_contents, ()))
            self.seen[function] = sha256(b"\0".join(parts))
        return self.seen[function]

    def _code(self, code: CodeType, scope: Mapping[str, Any]) -> Iterator[bytes]:
        yield code.co_code
        yield repr((code.co_argcount, code.co_names, code.co_varnames, code.co_freevars, code.co_flags)).encode()
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                yield from self._code(constant, scope)
            else:
                yield repr(constant).encode()
        for name in code.co_names:
            if name in scope:
                yield name.encode() + b"=" + self._value(scope[name], code.co_names)

    def _value(self, value: Any, attributes: tuple[str, ...]) -> bytes:
        """Describe what a name stands for; of a module, the constants that the code takes from it."""
        if isinstance(value, FunctionType):
            if value in self.intrinsics:
                return self._handmade(self.intrinsics[value])
            return self.digest(value) if value in self.devices else value.__qualname__.encode()
        if isinstance(value, np.ndarray):
            return repr((value.dtype.str, value.shape)).encode() + value.tobytes()
        if isinstance(value, ModuleType):
            if value.__name__.partition(".")[0] in ("numpy", "math"):
                return value.__name__.encode()
            found = [(name, vars(value)[name]) for name in attributes if name in vars(value)]
            return b";".join(name.encode() + self._value(item, ()) for name, item in found)
        if isinstance(value, _PLAIN):
            return repr(value).encode()
        # A class, or an object whose name is that of an attribute in the code: its identity must not enter a key.
        return getattr(value, "__qualname__", type(value).__qualname__).encode()

    def _handmade(self, build: Callable[[], Any]) -> bytes:
        """Describe an intrinsic: the code of its builder, and the modules of its package that the builder names."""
        builder = build if isinstance(build, FunctionType) else type(build).__call__
        package = getattr(build, "__module__", "").rpartition(".")[0]
        parts = [self.digest(builder) if isinstance(builder, FunctionType) else repr(builder).encode()]
        for name in _names(builder.__code__) if isinstance(builder, FunctionType) else ():
            parts.append(_module_source(package, name))
        return sha256(b"\0".join(parts))


def _names(code: CodeType) -> list[str]:
    nested = [name for constant in code.co_consts if isinstance(constant, CodeType) for name in _names(constant)]
    return [*code.co_names, *nested]


@cache
def _module_source(package: str, name: str) -> bytes:
    """Return the digest of a module's file, without importing the module; empty if there is no such module."""
    for folder in getattr(sys.modules.get(package), "__path__", ()):
        for suffix in (".py", ".pyc"):
            try:
                with open(f"{folder}/{name}{suffix}", "rb") as file:  # noqa: PTH123
                    return sha256(file.read())
            except OSError:
                continue
    return b""
