"""Saves the programs of networks, so that later processes load them without decoding the file (`prepared`)."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import dcformat
from dcformat.errors import LimitError, naming_file
from dcformat.jit import KernelMissingError
from dcformat.jit.machine_code import store
from dcformat.layout import DEFAULT_MAX_MEMORY, DEFAULT_MAX_WORK
from dcformat.model import require_no_delta
from dcformat.records import fields
from dcformat.wording import counted
from dcformat_runtime import prepared
from dcformat_runtime.backends import checked_options
from dcformat_runtime.compile import memory_prediction
from dcformat_runtime.compile.memory_prediction import Prediction
from dcformat_runtime.kernels import interpreter
from dcformat_runtime.network import lower
from dcformat_runtime.network_engine import KernelEngine
from dcformat_runtime.plans import make_plan
from dcformat_runtime.program_record import Program, TilePlan
from dcformat_runtime.session_maker import interface

if TYPE_CHECKING:
    from dcformat_runtime.engine import ProgramEngine
    from dcformat_runtime.session import NetworkInterface


def prepare(path: str | os.PathLike[str], *, deterministic: bool = False) -> int | None:
    """Save what `load` makes of a file in the user's cache, beside the kernels; later processes load it much sooner.

    `load` does the same for a file that an earlier process has loaded too.

    A session is made of what was saved if the file and dcformat are unchanged, with `backend` "auto" or "numba" and
    limits that are not below the default ones. Otherwise, `load` decodes the file.

    Parameters
    ----------
    path : path
    deterministic : bool
        Prepare the network for sessions with this option.

    Returns
    -------
    int or None
        The size of the saved file in bytes; None for a network that runs in several parts, which cannot be prepared.

    Raises
    ------
    FormatError
        The file is not valid, holds no network, or is too large (`LimitError`).
    OSError
        The file cannot be read, or nothing can be saved.
    KernelMissingError
        The kernels have no saved machine code, and cannot be compiled.
    """
    store.check()
    options = checked_options(None, deterministic, "numba", DEFAULT_MAX_MEMORY, DEFAULT_MAX_WORK)
    with naming_file(os.fspath(path)):
        if (size := os.stat(path).st_size) > store.MAX_BYTES:  # noqa: PTH116
            raise _too_large(size)
        data = Path(path).read_bytes()
        with dcformat.open(data) as file:
            require_no_delta(file.delta)
            plan = make_plan(file.graph, *memory_prediction.matrices_of(file), options)
            if not isinstance(plan, Prediction):
                return None
            model = file.model()
        network = lower(model)
        engine = KernelEngine(network, plan.threads, deterministic)
        seen = interface(model, network, plan, engine.name, deterministic)
        saved = _packed(data, os.fsdecode(path), seen, engine)
    store.write_named(_name(data, deterministic), saved)
    return len(saved)


def save(data: bytes, path: str, seen: NetworkInterface, engine: ProgramEngine, exact: bool) -> None:
    """Save the network of a session, unless that is impossible or another process is doing it.

    Parameters
    ----------
    data : bytes
        The file that the session was made of.
    path : str
        Where it is.
    seen : NetworkInterface
    engine : ProgramEngine
    exact : bool
        Whether the session is deterministic.
    """
    with suppress(OSError, MemoryError, LimitError, KernelMissingError), store.new_network(_name(data, exact)) as file:
        file.write(_packed(data, path, seen, engine))


class SavedNetwork(NamedTuple):
    """A network that is saved: its file, the bytes of this, when it was last used, and the file that it was made of.

    `used` is in seconds since 1970, to within a day.
    """

    file: str
    bytes: int
    used: float
    made_of: str


def saved_networks() -> list[SavedNetwork]:
    """Return the networks in the user's folder that are whole, those that were used last first."""
    found = []
    for file in store.entries():
        name = os.path.basename(file)  # noqa: PTH119
        data = store.read_named(name) if name.endswith(store.NETWORK_SUFFIX) else None
        values = None if data is None else prepared.unpack(data)
        if values is not None:
            status = Path(file).stat()
            found.append(SavedNetwork(file, status.st_size, status.st_mtime, values["path"]))
    return sorted(found, key=lambda saved: saved.used, reverse=True)


def _name(data: bytes, exact: bool) -> str:
    return prepared.name_of(len(data), data[-prepared.TAIL :], exact)


def _packed(data: bytes, path: str, seen: NetworkInterface, engine: ProgramEngine) -> bytes:
    """Return what is saved for a file whose bytes are `data`."""
    kernel = interpreter.run.path()
    if kernel is None:
        raise KernelMissingError(f"kernel {interpreter.run.name}: expected saved machine code, found none")
    pixels = None if seen.pixels is None else seen.pixels.tobytes()
    saved = prepared.pack(
        {
            "stamp": prepared.stamp(),
            "file": prepared.digest(data),
            "path": os.path.abspath(path),  # noqa: PTH100
            "kernel": os.path.basename(kernel),  # noqa: PTH119
            "interface": {name: getattr(seen, name) for name in fields(seen)} | {"pixels": pixels},
            "programs": {
                single: _values(engine.program(single)) for single in ((True,) if engine.alike else (True, False))
            },
        }
    )
    if len(saved) > store.MAX_BYTES:
        raise _too_large(len(saved))
    return saved


def _values(program: Program) -> tuple[Any, ...]:
    """Return the fields of a program, with plans as tuples and choices as their numbers."""
    plans: list[TilePlan] = []
    for plan in program.choices:
        if plan not in plans:
            plans.append(plan)
    listed = [(plan.tile, plan.lanes, plan.address, plan.names, plan.costs) for plan in plans]
    return program.mem.tobytes(), program.arena, listed, [plans.index(plan) for plan in program.choices], program.costs


def _too_large(size: int) -> LimitError:
    return LimitError("prepared network", got=counted(size, "byte"), expected=f"at most {store.MAX_BYTES:,}")
