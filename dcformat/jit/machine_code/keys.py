"""The keys of saved code: they cover the kernel's text, the machine, and the compiling libraries.

Bytecode stands for the source: it is available without the source file, needs no reading, and two texts with the same
bytecode compile to the same code. It depends on the Python version, and therefore the key does too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

from dcformat.jit.helpers import devices, intrinsics
from dcformat.jit.machine_code.image import sha256
from dcformat.jit.machine_code.targets import TARGETS

#: Change this if code must be recompiled although kernels are unchanged: for another compiler, entry or file form.
GENERATION = 2

#: The environment variables that change the compiler's output.
_ENVIRONMENT = ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NUMBA_OPT", "NUMBA_ENABLE_AVX")

_PLAIN = (bool, int, float, str, bytes, tuple, frozenset, np.generic, type(None))

_digests: dict[FunctionType, bytes] = {}


@cache
def compiler() -> str | None:
    """Return the installed compiler's version without importing it, or None if no compiler is installed."""
    found = dict(_versions())
    if len(found) < 2:
        return None
    return " ".join((*(f"{name} {found[name]}" for name in sorted(found)), f"numpy {np.__version__}"))


def _versions() -> Iterator[tuple[str, str]]:
    """Yield the names and versions of Numba and llvmlite, taken from the names of their metadata folders."""
    for folder in reversed(sys.path):  # The first match counts: dict() keeps the last.
        try:
            names = os.listdir(folder or ".")  # noqa: PTH208 - a tenth of the time of Path.iterdir
        except OSError:
            continue
        for name in names:
            base, _, rest = name.partition("-")
            if base in ("numba", "llvmlite") and rest.endswith((".dist-info", ".egg-info")):
                yield base, rest.rpartition(".")[0].partition("-")[0]


def kernel_key(target: str, function: FunctionType, options: object) -> bytes:
    """Return the key of a kernel's saved code.

    Parameters
    ----------
    target : str
        One of `targets.targets`.
    function : function
    options : object
        Signature and flags; their `repr` is part of the key.
    """
    environment = [os.environ.get(name) for name in _ENVIRONMENT] if target not in TARGETS else []
    head = (GENERATION, sys.implementation.cache_tag, target, environment, options)
    return sha256(repr(head).encode() + _digest(function))


def _digest(function: FunctionType) -> bytes:
    """Return the digest of a function, the helpers that it calls, and the constants that it names."""
    if function not in _digests:
        _digests[function] = b"itself"
        parts = [repr(function.__defaults__).encode(), *_code(function.__code__, function.__globals__)]
        for cell in function.__closure__ or ():
            parts.append(_value(cell.cell_contents, ()))
        _digests[function] = sha256(b"\0".join(parts))
    return _digests[function]


def _code(code: CodeType, scope: Mapping[str, Any]) -> Iterator[bytes]:
    yield code.co_code
    yield repr((code.co_argcount, code.co_names, code.co_varnames, code.co_freevars, code.co_flags)).encode()
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _code(constant, scope)
        else:
            yield repr(constant).encode()
    for name in code.co_names:
        if name in scope:
            yield name.encode() + b"=" + _value(scope[name], code.co_names)


def _value(value: Any, attributes: tuple[str, ...]) -> bytes:
    """Describe a name's value; for a module, describe the constants that the code takes from it."""
    if isinstance(value, FunctionType):
        if value in intrinsics:
            return _handmade(intrinsics[value])
        if value in devices:
            return _digest(value) if devices[value] else b"shared " + _digest(value)
        return value.__qualname__.encode()
    if isinstance(value, np.ndarray):
        return repr((value.dtype.str, value.shape)).encode() + value.tobytes()
    if isinstance(value, ModuleType):
        if value.__name__.partition(".")[0] in ("numpy", "math"):
            return value.__name__.encode()
        found = [(name, vars(value)[name]) for name in attributes if name in vars(value)]
        return b";".join(name.encode() + _value(item, ()) for name, item in found)
    if isinstance(value, _PLAIN):
        return repr(value).encode()
    # The identity of a class, or of an object with the name of an attribute in the code, must not enter a key. The
    # fields of a record must, because their order decides what a call of the class means.
    fields = getattr(value, "_fields", "") if isinstance(value, type) else ""
    return f"{getattr(value, '__qualname__', type(value).__qualname__)}{fields}".encode()


def _handmade(build: Callable[[], Any]) -> bytes:
    """Describe an intrinsic: its builder's code, the modules of its package that it imports, and the kit."""
    builder = build if isinstance(build, FunctionType) else type(build).__call__
    if not isinstance(builder, FunctionType):
        return sha256(repr(builder).encode())
    return _builder(builder, getattr(build, "__module__", "").rpartition(".")[0])


@cache  # Most intrinsics are made by a few builders.
def _builder(builder: FunctionType, package: str) -> bytes:
    names, root = _names(builder.__code__), package.partition(".")[0]
    packages = [package, *(name for name in names if name.partition(".")[0] == root and name != package)]
    sources = [_module_source(folder, name) for folder in packages for name in names]
    return sha256(b"\0".join((_digest(builder), _module_source("dcformat.jit.compiler", "ir_writer"), *sources)))


def _names(code: CodeType) -> list[str]:
    nested = [name for constant in code.co_consts if isinstance(constant, CodeType) for name in _names(constant)]
    return [*code.co_names, *nested]


@cache
def _module_source(package: str, name: str) -> bytes:
    """Return the digest of a module's file without importing the module; empty if the module does not exist."""
    for folder, files in _folders(package):
        for file in (f"{name}.py", f"{name}.pyc"):
            if file in files:
                with open(f"{folder}/{file}", "rb") as opened:  # noqa: PTH123
                    return sha256(opened.read())
    return b""


@cache
def _folders(package: str) -> tuple[tuple[str, frozenset[str]], ...]:
    """Return the folders of a package, with the names in them: most names in a builder's code are of no module."""
    root, _, rest = package.partition(".")
    folders = ["/".join((folder, *rest.split("."))) for folder in getattr(sys.modules.get(root), "__path__", ())]
    return tuple((folder, frozenset(os.listdir(folder))) for folder in folders if os.path.isdir(folder))  # noqa: PTH112, PTH208
