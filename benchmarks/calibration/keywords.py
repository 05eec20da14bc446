"""Compresses the DS-CNN of MLPerf Tiny without its training data, for synthetic sounds, and tests it on real ones.

    python benchmarks/calibration/keywords.py ../shared/data/mlperf_tiny keywords.dcf [SIZE]

The calibration inputs are computed (`sounds`): no recording is used before the end, where the network classifies the
1,000 official samples once.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import dcformat_runtime
import numpy as np
import sounds
import torch
from dcformat_interop import import_tflite
from dcformat_pruning.calibration import CalibrationGoal, CalibrationOptions, CalibrationTrial, compress_calibrated

import dcformat

#: How many sounds to compute, and how many gradients to take at each.
SOUNDS, PROBES = 640, 2


def report(trial: CalibrationTrial, best: bool) -> None:
    """Print a trial."""
    print(f"{'*' if best else ' '} {trial.size:,} bytes, change {trial.change:.4f} on other sounds", flush=True)


def main() -> None:
    """Compress, write and test the network."""
    folder, path = Path(sys.argv[1]), Path(sys.argv[2])
    goal = CalibrationGoal("size", float(sys.argv[3]) if len(sys.argv) > 3 else 12_000.0)
    torch.set_num_threads(1)
    started = time.process_time()
    model = import_tflite(folder / "kws_dscnn_float.tflite").model
    assert model.graph is not None
    rng = np.random.default_rng(0)
    inputs = np.stack([sounds.cepstrum(sounds.clip(rng)) for _ in range(SOUNDS)])
    name = model.graph.inputs[0].name
    options = CalibrationOptions(probes=PROBES)
    best = compress_calibrated(model, {name: inputs[..., None]}, goal, options, report)
    path.write_bytes(best.packed)
    took = time.process_time() - started
    samples = np.load(folder / "kws_samples.npz")
    x = (samples["x"].astype(np.float32) - 83) * np.float32(0.5847029)
    dense, packed = (
        np.argmax(dcformat_runtime.load(content)(x.reshape(-1, *model.graph.input_shape)), 1)
        for content in (dcformat.dumps(model), best.packed)
    )
    right, same = (packed == samples["y"]).sum(), (packed == dense).sum()
    print(
        f"{path}: {best.size:,} bytes; {right} of {len(x)} samples right (dense: {(dense == samples['y']).sum()}), "
        f"{same} as the dense network; {took:.0f} s of CPU"
    )


if __name__ == "__main__":
    main()
