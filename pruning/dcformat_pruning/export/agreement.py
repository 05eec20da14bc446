"""Comparing an exported graph with its module on random inputs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from dcformat.model import Model
from dcformat_pruning.export.graph_forward import graph_values
from dcformat_pruning.tracing import place, reason, unsupported

#: Differences up to this share of a sample's largest output are rounding errors.
_TOLERANCE = 3e-5

#: Scales of the inputs, one for each sample, in batches of different sizes. Small inputs show biases, large ones
#: clamping.
_SCALES = ((1.0, 0.01, 30.0), (3.0, 0.3))

_WAY_OUT = "its forward pass does something that tracing cannot see; write it with plain layers and functions"


def check_agreement(model: Model, module: nn.Module, marks: Sequence[tuple[str, int]]) -> None:
    """Compare the graph of a model with the module that it was made from.

    Parameters
    ----------
    model : Model
        A model with a graph.
    module : nn.Module
        In eval mode and float32, on the CPU; its hooks run.
    marks : sequence of (str, int)
        The paths of the layers in order of execution, and the numbers of the graph's values that they compute.

    Raises
    ------
    UnsupportedModuleError
        The two differ by more than rounding errors; the message gives the largest difference, and the first layer with
        a difference.
    """
    assert model.graph is not None
    weights = {name: torch.from_numpy(t.to_dense()) for name, t in model.tensors.items()}
    for x in _inputs(model.graph.input_shape):
        expected = _call(module, x)
        if not bool(expected.isfinite().any()):
            where = place("", type(module))
            raise unsupported(
                where, "finite results on random input", "NaN and infinity", "look for them in its weights"
            )
        values = graph_values(model.graph, weights, x)
        difference = _difference(values[-1], expected)
        if difference is None:
            continue
        first = _first_different(module, x, values, marks)
        behind = f", from {place(first, type(module.get_submodule(first)))} on" if first else ""
        expectation = "a graph that computes what the module does"
        raise unsupported(place("", type(module)), expectation, f"{difference}{behind}", _WAY_OUT)


def _inputs(shape: Sequence[int]) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(0)
    for scales in _SCALES:
        x = torch.randn((len(scales), *shape), generator=generator, device="cpu")
        yield x * torch.tensor(scales, device="cpu").view(-1, *[1] * len(shape))


def _call(module: nn.Module, x: Tensor) -> Tensor:
    try:
        result = module(x.clone())
    except Exception as error:  # the forward pass is the user's code, which may raise any exception
        raise unsupported(
            place("", type(module)),
            f"a forward pass that takes input of shape {tuple(x.shape)}",
            reason(error),
            "fit input_shape to the module",
        ) from error
    if not isinstance(result, Tensor):
        raise unsupported(place("", type(module)), "one tensor as result", type(result).__name__, _WAY_OUT)
    return result


def _difference(found: Tensor, expected: Tensor) -> str | None:
    """Describe how two results differ by more than rounding errors; None if they do not."""
    if found.shape != expected.shape:
        return f"results of shape {tuple(found.shape[1:])} instead of {tuple(expected.shape[1:])}"
    found, expected = found.flatten(1), expected.detach().flatten(1)
    finite = expected.isfinite()
    if not torch.equal(found.isfinite(), finite) or not torch.equal(found[~finite].isnan(), expected[~finite].isnan()):
        return "NaN or infinity in other places"
    gap = torch.where(finite, found - expected, 0.0).abs().amax(1)
    largest = torch.where(finite, expected, 0.0).abs().amax(1)
    if bool((gap <= _TOLERANCE * largest).all()):
        return None
    worst = int((gap / largest).nan_to_num(torch.inf).argmax())
    return f"a difference of {gap[worst].item():.3g} in results of up to {largest[worst].item():.3g}"


def _first_different(
    module: nn.Module, x: Tensor, values: Sequence[Tensor], marks: Sequence[tuple[str, int]]
) -> str | None:
    """Return the path of the first layer whose result differs from the graph's value; None if all layers agree."""
    results: dict[str, list[Tensor]] = defaultdict(list)
    handles = []
    for path in {path for path, _ in marks}:

        def keep(_module: nn.Module, _inputs: object, result: Tensor, path: str = path) -> None:
            results[path].append(result.clone())

        handles.append(module.get_submodule(path).register_forward_hook(keep))
    _call(module, x)
    for handle in handles:
        handle.remove()
    for path, number in marks:
        if not results[path] or _difference(values[number], results[path].pop(0)) is not None:
            return path
    return None
