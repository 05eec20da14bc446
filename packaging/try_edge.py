"""Try an installation of the wheel with NumPy, crc32c and click alone: every file of `models/` by every reading verb.

Run by `make edge`, with the Python of an environment that has only these. Every kernel must come from the wheel.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
MODELS = sorted((ROOT / "models").glob("*.dcf"))
EXPECTED = {"numpy", "crc32c", "click", "dcformat"}
#: Megabytes that the installed packages may take, NumPy included.
MAX_MEGABYTES = 90

STATES = """
import sys
import numpy as np
import dcformat
import dcformat_runtime
from dcformat import jit
for name in sys.argv[1:]:
    session = dcformat_runtime.load(name)
    session(np.zeros((3, *session.input_shape), np.float32))
    assert session.backend == "numba", session.backend
states = {kernel.state for kernel in jit.kernels()} - {"unresolved"}
assert states == {"saved"}, states
"""


def command(*arguments: str, cache: Path) -> str:
    """Run the command and return what it prints; nothing may be compiled."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DCFORMAT_")}
    done = subprocess.run(
        [sys.executable, "-m", "dcformat", *arguments], capture_output=True, text=True, cwd=cache.parent, check=False,
        env=environment | {"DCFORMAT_CACHE_DIR": str(cache)},
    )  # fmt: skip
    assert done.returncode == 0, (arguments, done.stderr)
    assert not done.stderr, (arguments, done.stderr)
    return done.stdout


def run(model: Path, shape: list[int], cache: Path) -> None:
    """Run a network on the images of MNIST if it takes them, else on zeros."""
    if math.prod(shape) == 784:
        assert "accuracy" in command("run", str(model), "--data", str(ROOT / "data" / "mnist"), cache=cache)
        return
    inputs = cache.parent / "inputs.npy"
    np.save(inputs, np.zeros((3, *shape), np.float32))
    assert json.loads(command("run", str(model), "--input", str(inputs), "--json", cache=cache))["images"] == 3


def main() -> None:
    """Try every verb, and count the packages' bytes."""
    names = {distribution.metadata["Name"] for distribution in importlib.metadata.distributions()}
    assert names - {"pip", "setuptools", "wheel"} == EXPECTED, names
    site = Path(np.__file__).parents[1]
    packages = [p for p in site.iterdir() if p.name.partition("-")[0] not in ("pip", "setuptools", "pkg_resources")]
    files = [file for package in packages for file in ([package] if package.is_file() else package.rglob("*"))]
    size = sum(file.stat().st_size for file in files if file.is_file())
    assert size < MAX_MEGABYTES << 20, size
    with tempfile.TemporaryDirectory() as name:
        cache = Path(name) / "cache"
        for model in MODELS:
            assert model.name in command("verify", str(model), cache=cache)
            inspected = json.loads(command("inspect", "--json", str(model), cache=cache))
            assert inspected["file"] == str(model)
            command("unpack", str(model), "-o", str(cache.parent / f"{model.stem}.npz"), cache=cache)
            run(model, inspected["network"]["input_shape"], cache)
        command("doctor", cache=cache)
        environment = os.environ | {"DCFORMAT_CACHE": "kernels", "DCFORMAT_CACHE_DIR": str(cache)}
        subprocess.run([sys.executable, "-c", STATES, *map(str, MODELS)], check=True, cwd=name, env=environment)
        again = ROOT / "models" / "lenet-5.dcf"
        for _ in range(2):  # the second process saves the network, and the third uses it
            run(again, [28, 28], cache)
            saved = json.loads(command("warmup", "--list", "--json", cache=cache))["networks"]
            assert [network["made_of"] for network in saved] == [str(again)], saved
        assert not list(cache.rglob("*.kernel")), "something was compiled"
    print(f"{len(MODELS)} files pass with {', '.join(sorted(EXPECTED))} alone, {size / 1e6:.0f} MB together")


if __name__ == "__main__":
    main()
