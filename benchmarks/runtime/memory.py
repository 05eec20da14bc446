"""Measures the peak memory of processes that load a network and run it, in dcformat and in onnxruntime.

    python benchmarks/runtime/memory.py [resnet-50/0.1 vgg-16/1 ...]

Each process reads a file, imports nothing else, and runs two batches on one thread.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PATHS = [str(HERE.parents[1] / folder) for folder in ("runtime", "interop", "")]
sys.path[:0] = [str(HERE), *PATHS]

_BATCHES = 1, 32
_START = """
import sys
import numpy as np
x = np.full([int(size) for size in sys.argv[2].split(",")], 0.5, np.float32)
"""
_END = """
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
_DCFORMAT = f"""
sys.path[:0] = {PATHS!r}
import dcformat_runtime
session = dcformat_runtime.load(sys.argv[1], threads=1)
session(x), session(x)
"""
_ONNXRUNTIME = """
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
for _ in range(2):
    session.run(None, {session.get_inputs()[0].name: x})
"""


def peak(script: str, path: Path, shape: tuple[int, ...]) -> float:
    """Return the MiB that a process took to run two batches of a shape."""
    command = [sys.executable, "-c", _START + script + _END, str(path), ",".join(map(str, shape))]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("networks", nargs="*", default=["resnet-50/0.1", "mobilenet-v1/0.1", "vgg-16/0.1"])
    arguments = parser.parse_args()
    import networks
    from dcformat_interop.onnx_export import to_onnx

    import dcformat

    print("| MiB, dcformat / onnxruntime | " + " | ".join(f"batch {batch}" for batch in _BATCHES) + " |")
    print("|---" * (len(_BATCHES) + 1) + "|")
    for name in arguments.networks:
        model = networks.load(name)
        assert model.graph is not None
        with tempfile.TemporaryDirectory() as folder:
            ours, theirs = Path(folder) / "model.dcf", Path(folder) / "model.onnx"
            dcformat.save(model, ours, mode="fast")
            theirs.write_bytes(to_onnx(model))
            cells = [
                f"{peak(_DCFORMAT, ours, shape):.0f} / {peak(_ONNXRUNTIME, theirs, shape):.0f}"
                for shape in ((batch, *model.graph.input_shape) for batch in _BATCHES)
            ]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
