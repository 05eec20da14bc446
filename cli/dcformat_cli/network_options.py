"""A user's options about a network besides its tensors: preprocessing, and the labels of its classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dcformat.graph import Graph, Preprocessing
from dcformat.model import Tensor
from dcformat_cli.failures import UnfitError

Numbers = tuple[float, ...]


def preprocessing(mean: Numbers | None, std: Numbers | None) -> Preprocessing:
    """Return the preprocessing; a single mean or deviation serves all channels for which the other has numbers."""
    mean, std = mean or (0.0,), std or (1.0,)
    channels = max(len(mean), len(std))
    mean, std = (values * channels if len(values) == 1 else values for values in (mean, std))
    return Preprocessing(_float32(mean), _float32(std))


def check_channels(path: Path, rule: Preprocessing, graph: Graph) -> None:
    """Refuse numbers for channels that a network has last, as TensorFlow's do: preprocessing has them first."""
    count, shape = len(rule.mean), graph.inputs[0].shape
    first = shape[0] if len(shape) == 3 else 1
    if len(graph.inputs) == 1 and count not in (1, first) and shape[-1:] == (count,):
        expected = f"one number for all channels, which are the last dimension of the input {shape}"
        raise UnfitError(path, expected, f"{count}", "--mean and --std")


def _float32(values: Numbers) -> Numbers:
    """Round to float32, the precision of a file and of a network's computation."""
    return tuple(float(np.float32(value)) for value in values)


def labels_file(labels: str | None) -> str | None:
    """Return the file that ``--labels @FILE`` names."""
    return labels[1:] if labels is not None and labels.startswith("@") else None


def read_labels(given: str | None, graph: Graph | None, tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Return the labels that ``--labels`` gives, one for each class of a network."""
    if given is None or graph is None:
        return ()
    if (file := labels_file(given)) is not None:
        path = Path(file)
        try:
            labels = tuple(path.read_text("utf-8").splitlines())
        except UnicodeDecodeError:
            raise UnfitError(path, "labels in UTF-8, one per line", "other bytes") from None
    else:
        labels = tuple(label.strip() for label in given.split(","))
    shapes = graph.shapes({name: tensor.shape for name, tensor in tensors.items()})
    outputs = shapes[graph.outputs[0].value]
    if (len(labels),) != outputs[-1:]:
        raise UnfitError("--labels", f"{outputs[-1] if outputs else 1} labels", len(labels))
    return labels
