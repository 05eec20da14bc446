"""The two LeNets as plain `nn.Sequential`, with the tensor names of `dcformat.architectures`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dcformat.architectures import ARCHITECTURES


class CheckpointError(ValueError):
    """A checkpoint cannot be read or does not fit the network; the message names the file or the tensor."""


def build(architecture: str, seed: int = 0) -> nn.Sequential:
    """Build a freshly initialised network.

    Parameters
    ----------
    architecture : {'lenet-300-100', 'lenet-5'}
    seed : int
        Seeds the initial weights. The global generator is not affected.

    Raises
    ------
    ValueError
        The architecture is unknown.
    """
    if architecture not in _BUILDERS:
        raise ValueError(f"architecture: expected one of {', '.join(_BUILDERS)}, found {architecture!r}")
    with seeded(seed):
        return _BUILDERS[architecture]()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed PyTorch's random numbers on the CPU for the block; afterwards the global generator is restored."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def load_weights(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy `state` into `module`.

    Tensors are matched by name, or by their order if the names differ: ``0.weight`` may stand for ``fc1.weight``.

    Raises
    ------
    CheckpointError
        There are too few or too many tensors, a shape does not fit, or values are not finite.
    """
    own = module.state_dict()
    if len(state) != len(own):
        raise CheckpointError(f"checkpoint: expected {len(own)} tensors ({', '.join(own)}), found {len(state)}")
    if set(state) == set(own):
        pairs = [(name, state[name]) for name in own]
    else:
        pairs = list(zip(own, state.values(), strict=True))
    for name, value in pairs:
        if tuple(value.shape) != tuple(own[name].shape):
            expected, found = tuple(own[name].shape), tuple(value.shape)
            raise CheckpointError(f"checkpoint: {name}: expected shape {expected}, found {found}")
        if not bool(torch.isfinite(value).all()):
            raise CheckpointError(f"checkpoint: {name}: expected finite values, found NaN or infinity")
    module.load_state_dict(dict(pairs))


def _lenet_300_100() -> nn.Sequential:
    shapes = ARCHITECTURES["lenet-300-100"].shapes
    layers = OrderedDict(
        flatten=nn.Flatten(),
        fc1=_linear(shapes["fc1.weight"]),
        relu1=nn.ReLU(),
        fc2=_linear(shapes["fc2.weight"]),
        relu2=nn.ReLU(),
        fc3=_linear(shapes["fc3.weight"]),
    )
    return nn.Sequential(layers)


def _lenet_5() -> nn.Sequential:
    shapes = ARCHITECTURES["lenet-5"].shapes
    layers = OrderedDict(
        conv1=nn.Conv2d(1, shapes["conv1.weight"][0], 5),
        pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(shapes["conv2.weight"][1], shapes["conv2.weight"][0], 5),
        pool2=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        fc1=_linear(shapes["fc1.weight"]),
        relu1=nn.ReLU(),
        fc2=_linear(shapes["fc2.weight"]),
    )
    return nn.Sequential(layers)


def _linear(shape: tuple[int, ...]) -> nn.Linear:
    return nn.Linear(shape[1], shape[0])


_BUILDERS = {"lenet-300-100": _lenet_300_100, "lenet-5": _lenet_5}
