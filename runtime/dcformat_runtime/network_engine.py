"""The backend of compiled kernels: makes the programs of a network, and runs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dcformat_runtime import cpu
from dcformat_runtime.compile.program import build, runs_one_by_one
from dcformat_runtime.engine import HAND_OVER, ProgramEngine
from dcformat_runtime.kernels import interpreter
from dcformat_runtime.network import Network


class KernelEngine(ProgramEngine):
    """Runs a network with compiled kernels. It makes one program for one image and one for many, on first use.

    Parameters
    ----------
    network : Network
    threads : int
        Maximum number of threads that share a call, the caller included.
    exact : bool
        Give the same bits for every batch and number of threads.
    vectors : cpu.Vectors, optional
        The registers to compile for; by default, those of this machine.
    hand_over : float
        Estimated nanoseconds until a worker begins; work is shared only if that saves time.
    """

    def __init__(
        self,
        network: Network,
        threads: int,
        exact: bool,
        *,
        vectors: cpu.Vectors | None = None,
        hand_over: float = HAND_OVER,
    ) -> None:
        registers, run = vectors or cpu.vectors(), interpreter.run.resolve()
        super().__init__(
            lambda single: build(network, exact, registers, single=single),
            _quiet(run) if interpreter.run.state == "python" else run,
            network.outputs,
            threads,
            alike=runs_one_by_one(network),
            hand_over=hand_over,
        )


def _quiet(kernel: Callable[..., int]) -> Callable[..., int]:
    """Let the kernel's Python form compute with infinities and NaN as the compiled one does, without warnings."""

    def quiet(*args: Any) -> int:
        with np.errstate(all="ignore"):
            return kernel(*args)

    return quiet
