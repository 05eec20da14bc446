"""Run the kernels' AArch64 code under QEMU and compare with this machine's results; see README.md beside this file."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOTS = [str(HERE.parents[1] / folder) for folder in ("cli", "runtime", "", "benchmarks/runtime")]
sys.path[:0] = ROOTS

#: Linux's answer on a small 64-bit Arm machine. QEMU's user mode shows the host's processor.
CPUINFO = "processor\t: 0\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\n\n"
BATCHES = (1, 5, 16, 70)

RUN = """
import os
import sys
import numpy as np
from dcformat.jit import cpuinfo
if sys.argv[1]:
    cpuinfo.PATH = sys.argv[1]
import dcformat_runtime
from dcformat import jit
for name in sys.argv[3:]:
    for exact in (False, True):
        session = dcformat_runtime.load(name, threads=1, backend="numba", deterministic=exact)
        for batch in map(int, sys.argv[2].split(",")):
            x = np.random.default_rng(batch).random((batch, *session.input_shape), np.float32)
            np.save(f"{name}-{os.uname().machine[:7].strip()}-{exact}-{batch}.npy", session(x))
assert "numba" not in sys.modules or not sys.argv[1]
states = {kernel.state for kernel in jit.kernels()} - {"unresolved"}
assert not sys.argv[1] or states == {"saved"}, states
"""


def main() -> None:
    """Compile, run both, compare."""
    import networks
    import numpy as np

    import dcformat

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True, help="folder with usr/bin/python3.11 for AArch64")
    parser.add_argument("--site", required=True, help="folder with AArch64's numpy and crc32c")
    parser.add_argument("--qemu", default="qemu-aarch64")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = []
        for network in ("lenet-300-100/vs", "lenet-5/vs"):
            for mode in ("fast", "small"):
                files.append(folder / f"{network.replace('/', '-')}-{mode}.dcf")
                dcformat.save(networks.load(network), files[-1], mode=mode)
        (folder / "cpuinfo").write_text(CPUINFO)
        ours = {**os.environ, "PYTHONPATH": os.pathsep.join(ROOTS)}
        warmup = "from dcformat_cli.main import main; main()"
        subprocess.run(
            [sys.executable, "-c", warmup, "warmup", "--target", "aarch64", "--into", name], env=ours, check=True
        )
        rest = [",".join(map(str, BATCHES)), *map(str, files)]
        subprocess.run([sys.executable, "-c", RUN, "", *rest], env=ours, check=True)
        theirs = ours | {"PYTHONPATH": os.pathsep.join((options.site, *ROOTS)), "DCFORMAT_CACHE": "only",
                         "DCFORMAT_CACHE_DIR": name, "QEMU_LD_PREFIX": options.root}  # fmt: skip
        python = str(Path(options.root) / "usr/bin/python3.11")
        subprocess.run([options.qemu, python, "-c", RUN, str(folder / "cpuinfo"), *rest], env=theirs, check=True)
        for file in files:
            for batch in BATCHES:
                for exact in (False, True):
                    here, there = (np.load(f"{file}-{m}-{exact}-{batch}.npy") for m in ("x86_64", "aarch64"))
                    error = float(np.abs(here - there).max() / np.abs(here).max())
                    assert error <= (0 if exact else 1e-5), (file.name, batch, exact, error)
                    print(f"{file.name}, batch {batch}, {'deterministic' if exact else 'fast'}: error {error:.1e}")


if __name__ == "__main__":
    main()
