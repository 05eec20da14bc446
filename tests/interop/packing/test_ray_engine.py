"""The Ray engine, on a local cluster of two machines."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dcformat_interop import UnfitError
from dcformat_interop.packing.checkpoint_packing import Packing
from dcformat_interop.packing.packed_files import write_one
from dcformat_interop.packing.shards import find_shards
from dcformat_interop.packing.workers import Executor, ThisProcess

from tests.interop.packing.checkpoints import safetensors, write

ray = pytest.importorskip("ray", reason="Ray, which is not among the packages of the checks, is not installed")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs_compiler,
    # Ray leaves files and sockets open, and uses what Python has deprecated.
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Start a cluster of two nodes with a processor each, and connect to it."""
    from ray.cluster_utils import Cluster

    paths = os.pathsep.join(filter(None, sys.path))
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = paths  # for the workers
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    made.add_node(num_cpus=1)
    ray.init(address=made.address, logging_level="error", log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


def pack(path: Path, out: Path, engine: Executor) -> bytes:
    work = Packing(find_shards(path), "fast", exact=False, skip=(), max_memory=None)
    with work.journal(None) as journal, out.open("wb") as file:
        work.run(engine, journal, lambda _: None)
        write_one(work.coded(journal), "fast", {}, (), file)
    return out.read_bytes()


def kill_one_worker(killed: list[int]) -> None:
    """Kill a process that does a unit, as soon as there is one."""
    for _ in range(3000):
        for process in Path("/proc").glob("[0-9]*"):
            try:
                title = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if title.startswith(b"ray::run"):
                os.kill(int(process.name), signal.SIGKILL)
                killed.append(int(process.name))
                return
        time.sleep(0.01)


def test_a_cluster_gives_the_same_bytes_even_if_a_worker_is_killed(tmp_path: Path, cluster: Any) -> None:
    from dcformat_interop.packing.ray_engine import RayEngine

    random = np.random.default_rng(2)
    arrays = {f"w{n}": random.integers(0, 1 << 16, (1500, 1500)).astype(np.uint16) for n in range(6)}
    (tmp_path / "a.safetensors").write_bytes(safetensors(arrays))
    expected = pack(tmp_path / "a.safetensors", tmp_path / "local", ThisProcess())
    engine, killed = RayEngine(None), list[int]()
    assert engine.slots == 4
    killer = threading.Thread(target=kill_one_worker, args=(killed,))
    killer.start()
    made = pack(tmp_path / "a.safetensors", tmp_path / "far", engine)
    killer.join()
    assert made == expected and killed
    engine.close()
    assert ray.is_initialized()  # the engine joined a cluster that others use


def test_errors_on_the_cluster_are_the_same_here(tmp_path: Path, cluster: Any) -> None:
    from dcformat_interop.packing.ray_engine import RayEngine

    write(tmp_path / "in")
    work = Packing(find_shards(tmp_path / "in"), "fast", exact=False, skip=(), max_memory=None)
    os.utime(tmp_path / "in" / "model-00001-of-00003.safetensors", ns=(1, 1))
    with work.journal(None) as journal, pytest.raises(UnfitError, match="expected the file to stay unchanged"):
        work.run(RayEngine(None), journal, lambda _: None)
