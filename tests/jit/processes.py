"""Runs kernels in new processes, each with its own cache of machine code."""

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

REPORT = """
import json, sys
import numpy as np
from dcformat import jit
from machine_kernels import simple as k
kernels = [k.total, k.scale, k.steps, k.fill, k.mean, k.has]
try:
    jit.warm(kernels)
    values = np.arange(5, dtype=np.int64)
    matrix = np.ones((2, 3), np.float32)
    k.scale(matrix, 2.0, 0.5, True)
    filled = np.zeros(3000, np.uint8)
    k.fill(filled, 9)
    out = dict(
        total=int(k.total(values, 2)), matrix=matrix.tolist(), steps=int(k.steps(10, 3)), filled=filled.sum().item(),
        mean=float(k.mean(np.array([1.0, 2.0]))), has=[bool(k.has(filled, 9)), bool(k.has(filled, 8))],
    )
except Exception as error:
    out = dict(error=type(error).__name__, text=str(error))
print(json.dumps(dict(out=out, states=[x.state for x in kernels], numba="numba" in sys.modules)))
"""
RIGHT = {
    "total": 70, "matrix": [[2.5] * 3] * 2, "steps": 36, "filled": 27000, "mean": 1.5, "has": [True, False],
}  # fmt: skip


def run(cache, script=REPORT, where=HERE, **env):
    """Run a script in a new process with the cache below `cache`; return what it printed."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_", "DCFORMAT_", "XDG_"))}
    paths = os.pathsep.join(str(p) for p in (where, ROOT))
    ours |= {"PYTHONPATH": paths, "DCFORMAT_CACHE_DIR": str(cache), **env}
    done = subprocess.run([sys.executable, "-c", script], env=ours, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def files(cache):
    return sorted((cache / "kernels").glob("*.kernel"))
