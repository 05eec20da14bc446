"""Prepared networks: their programs, saved beside the kernels' machine code.

A process that finds a prepared network neither decodes the file nor lays out programs, and imports a quarter of the
modules. `preparing` saves what this module finds: when asked to, and when a second process loads a file. It counts
only if the `.dcf` file has the same bytes, the source code of both packages is the same as far as Python's bytecode
cache can tell, and the machine is one for which the saved machine code was made. A file in the folder is trusted as
machine code is (`dcformat.jit.machine_code.store`).
"""

from __future__ import annotations

import marshal
import os
import stat
import sys
from _blake2 import blake2b
from binascii import crc32
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from dcformat.jit import cpuinfo, settings
from dcformat.jit.machine_code import image, loader, store
from dcformat.layout import DEFAULT_MAX_MEMORY, DEFAULT_MAX_WORK
from dcformat_runtime import cpu
from dcformat_runtime.engine import ProgramEngine
from dcformat_runtime.program_record import Program, TilePlan, aligned_zeros
from dcformat_runtime.session import NetworkInterface, Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from dcformat_runtime.backends import LoadOptions

MAGIC = b"DCFNETW\x02"
_DIGEST, _CRC = 32, 4
#: The version of `marshal` that every supported Python reads: `saved_networks` meets files of all.
_MARSHAL = 4
#: The last bytes of a file, with its content digest, are part of the name under which its network is saved.
TAIL = 64


def find(path: str, options: LoadOptions) -> Session | None:
    """Return the session of a file whose network is saved, or None if the file has to be loaded in the ordinary way.

    A network that an earlier process loaded too is saved now, from the session that is returned.
    """
    if not _counts(path, options):
        return None
    try:
        status = os.stat(path)  # noqa: PTH116 - pathlib costs milliseconds at start
        # A pipe must not even be opened: its writer would believe that it has a reader.
        if not (stat.S_ISREG(status.st_mode) and 0 < status.st_size <= store.MAX_BYTES):
            return None
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            tail = os.pread(file.fileno(), TAIL, max(0, status.st_size - TAIL))
            name = name_of(status.st_size, tail, options.deterministic)
            saved = _saved(name, file.fileno(), status.st_size)
            kernel = None if saved is None else _kernel(saved["kernel"])
            if saved is not None and kernel is not None:
                store.note_use(name)
                return _session(saved, kernel, path, options)
            if not (settings.saves_networks() and store.loaded_before(name)):
                return None
            data = os.pread(file.fileno(), status.st_size, 0)
    except OSError:
        return None  # opening it in the ordinary way tells why
    from dcformat_runtime.session_maker import load_and_save

    return load_and_save(path, data, options)


def _counts(path: str, options: LoadOptions) -> bool:
    """Return whether a network that was saved for a path, if any, counts with these options and settings."""
    small_limits = (
        options.max_memory is not None and options.max_memory < DEFAULT_MAX_MEMORY,
        options.max_work is not None and options.max_work < DEFAULT_MAX_WORK,
    )
    switched_off = options.backend == "numpy" or settings.cache() == "off" or settings.mode() != "native"
    return not (any(small_limits) or switched_off or "://" in path)  # the last is a URL


def name_of(size: int, tail: bytes, exact: bool) -> str:
    """Return the name under which the network of a file is saved, given the file's size and last bytes."""
    return f"{digest(repr((sys.implementation.cache_tag, exact, size, tail)).encode()).hex()}{store.NETWORK_SUFFIX}"


def digest(data: bytes) -> bytes:
    """Return 32 bytes of BLAKE2b, which Python computes twice as fast as SHA-256 without loading OpenSSL."""
    return blake2b(data, digest_size=_DIGEST).digest()


def stamp() -> tuple[str | None, bytes]:
    """Return what a prepared network depends on besides the file: the processor, and the sources of both packages."""
    roots = (sys.modules[name].__path__[0] for name in ("dcformat", "dcformat_runtime"))
    return cpuinfo.identity(), digest(repr([_sources(root) for root in roots]).encode())


def _sources(folder: str) -> list[Any]:
    """Return the names, sizes and times of all modules in a folder, by which Python knows whether bytecode is stale."""
    found: list[Any] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith((".py", ".pyc")):
                status = entry.stat()
                found.append((entry.name, status.st_size, status.st_mtime_ns))
            elif entry.name != "__pycache__" and entry.is_dir():
                found.append((entry.name, *_sources(entry.path)))
    return sorted(found)


def pack(values: dict[str, Any]) -> bytes:
    """Return the bytes of a file with these values."""
    body = marshal.dumps(values, _MARSHAL)
    return MAGIC + crc32(body).to_bytes(_CRC, "little") + body


def unpack(data: bytes) -> dict[str, Any] | None:
    """Return the values in a file, or None if it is damaged."""
    start = len(MAGIC) + _CRC
    body = memoryview(data)[start:]
    if data[: len(MAGIC)] != MAGIC or data[len(MAGIC) : start] != crc32(body).to_bytes(_CRC, "little"):
        return None
    values: dict[str, Any] = marshal.loads(body)  # noqa: S302 - plain data, which only the user can have written
    return values


def _saved(name: str, file: int, size: int) -> dict[str, Any] | None:
    """Return the values that were saved for an open file of `size` bytes, if they are whole and still count."""
    data = store.read_named(name)
    values = None if data is None else unpack(data)
    if values is None or values["stamp"] != stamp() or values["file"] != digest(os.pread(file, size, 0)):
        return None
    return values


def _kernel(name: str) -> Callable[..., int] | None:
    """Return `interpreter.run` from its saved machine code, without importing the module of the kernel."""
    data = store.read_named(name)
    try:
        return None if data is None else _loaded(name, data)
    except (OSError, LookupError):
        return None


@cache
def _loaded(name: str, data: bytes) -> Callable[..., int] | None:
    """Load a kernel once in a process, because the memory of machine code is never freed."""
    code = image.unpack(data, bytes.fromhex(name.partition("-")[0]))
    return None if code is None else loader.load(code, "run", _convert)


def _convert(*args: Any) -> Any:
    """Run the kernel with arguments of types that its machine code refuses."""
    from dcformat_runtime.kernels import interpreter

    return interpreter.run(*args)


def _session(values: dict[str, Any], kernel: Callable[..., int], path: str, options: LoadOptions) -> Session | None:
    """Return a session of saved values; None if it would exceed the caller's limit."""
    programs, seen, limit = values["programs"], values["interface"], options.max_memory
    alike = False not in programs
    # Until a program is made, only its bytes are in memory; while it is made, both are.
    held = seen["call"] + 2 * sum(len(saved[0]) for saved in programs.values()) + 4 * programs[True][1]
    arena = 4 * programs[alike][1]
    threads = options.threads or cpu.threads_in(None if limit is None else limit - held, arena)
    held += threads * arena
    if limit is not None and held > limit:
        return None

    def make(single: bool) -> Program:
        saved = programs[single]
        # One assignment, because the process may fork at any time. The bytes that were saved are freed.
        programs[single] = program = saved if isinstance(saved, Program) else _program(*saved)
        return program

    pixels = seen["pixels"] if seen["pixels"] is None else np.frombuffer(seen["pixels"], np.float32).reshape(-1, 256)
    interface = NetworkInterface(**{**seen, "pixels": pixels, "memory": held})
    engine = ProgramEngine(make, kernel, interface.outputs, threads, alike=alike)
    return Session(interface, engine, options, os.path.abspath(path))  # noqa: PTH100


def _program(mem: bytes, arena: int, plans: list[Any], choices: list[int], costs: tuple[float, ...]) -> Program:
    words = aligned_zeros(len(mem) // 4)
    words[:] = np.frombuffer(mem, np.float32)
    made = []
    for tile, lanes, address, names, estimates in plans:
        plan = TilePlan(tile, lanes)
        plan.address, plan.names, plan.costs = address, names, estimates
        made.append(plan)
    return Program(words, arena, tuple(made[choice] for choice in choices), costs)
