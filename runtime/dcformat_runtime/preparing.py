"""Prepares networks: saves their programs, so that later processes load them without decoding (`prepared`)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from dcformat_runtime.compile.program import runs_one_by_one
from dcformat_runtime.kernels import interpreter
from dcformat_runtime.network import lower
from dcformat_runtime.network_engine import KernelEngine
from dcformat_runtime.plans import make_plan
from dcformat_runtime.program_record import Program, TilePlan
from dcformat_runtime.session_maker import interface

if TYPE_CHECKING:
    from dcformat import DcfFile


def prepare(path: str | os.PathLike[str], *, deterministic: bool = False) -> int | None:
    """Save what `load` makes of a file in the user's cache, beside the kernels; later processes load it much sooner.

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
    with naming_file(os.fspath(path)):
        if (size := os.stat(path).st_size) > store.MAX_BYTES:  # noqa: PTH116
            raise _too_large(size)
        data = Path(path).read_bytes()
        with dcformat.open(data) as file:
            saved = _packed(file, data, deterministic)
        if saved is None:
            return None
        if len(saved) > store.MAX_BYTES:
            raise _too_large(len(saved))
    store.write_named(prepared.name_of(len(data), data[-prepared.TAIL :], deterministic), saved)
    return len(saved)


def _packed(file: DcfFile, data: bytes, deterministic: bool) -> bytes | None:
    """Return what is saved for an open file, whose bytes are `data`; None if its network runs in several parts."""
    require_no_delta(file.delta)
    options = checked_options(None, deterministic, "numba", DEFAULT_MAX_MEMORY, DEFAULT_MAX_WORK)
    plan = make_plan(file.graph, *memory_prediction.matrices_of(file), options)
    if not isinstance(plan, Prediction):
        return None
    model = file.model()
    network = lower(model)
    engine = KernelEngine(network, plan.threads, deterministic)
    kernel = interpreter.run.path()
    if kernel is None:
        raise KernelMissingError(f"kernel {interpreter.run.name}: expected saved machine code, found none")
    seen = interface(model, network, plan, engine.name, deterministic)
    pixels = None if seen.pixels is None else seen.pixels.tobytes()
    return prepared.pack(
        {
            "stamp": prepared.stamp(),
            "file": prepared.digest(data),
            "kernel": os.path.basename(kernel),  # noqa: PTH119
            "interface": {name: getattr(seen, name) for name in fields(seen)} | {"pixels": pixels},
            "programs": {
                single: _values(engine.program(single))
                for single in ((True,) if runs_one_by_one(network) else (True, False))
            },
        }
    )


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
