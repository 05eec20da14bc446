"""An engine that does units of work on a Ray cluster, whose machines see the files under the same paths."""

from __future__ import annotations

from typing import Any

import ray

from dcformat_interop.packing.units import Unit, UnitResult, run
from dcformat_interop.packing.workers import WorkerError

#: Number of times that Ray repeats a unit whose worker or machine was lost.
_RETRIES = 5


class RayEngine:
    """Does units on a Ray cluster; if a worker is killed, another one repeats its unit.

    Parameters
    ----------
    address : str or None
        The cluster's address; None uses the one that ``RAY_ADDRESS`` names, or starts one on this machine.
    """

    jobs = 1

    def __init__(self, address: str | None) -> None:
        self._was_connected = ray.is_initialized()
        if not self._was_connected:
            try:
                ray.init(address=address, logging_level="error", log_to_driver=False)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise WorkerError(f"no Ray cluster at {address or 'this machine'}: {error}") from None
        self._run = ray.remote(run).options(max_retries=_RETRIES, num_cpus=1)
        # Each processor has another unit ready when it ends one.
        self.slots = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
        self._units: dict[Any, Unit] = {}

    def submit(self, unit: Unit) -> None:
        """Give a unit to the cluster."""
        self._units[self._run.remote(unit)] = unit

    def wait(self) -> tuple[Unit, UnitResult]:
        """Return the next result.

        Raises
        ------
        WorkerError
            Workers of a unit were lost again and again.
        Exception
            The error of the unit.
        """
        (done,), _ = ray.wait(list(self._units), num_returns=1)
        unit = self._units.pop(done)
        try:
            return unit, ray.get(done)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            first = str(error).strip().splitlines()[0]
            raise WorkerError(f"a worker of the Ray cluster was lost {_RETRIES + 1} times: {first}") from None

    def close(self) -> None:
        """Cancel the units in progress, and leave the cluster if this object joined it."""
        for reference in self._units:
            ray.cancel(reference, force=True)
        if not self._was_connected:
            ray.shutdown()
