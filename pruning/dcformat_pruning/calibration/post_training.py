"""Compresses a network without training: by its own outputs at calibration inputs, or at random ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from dcformat_runtime.ports import Ports
from torch import Tensor

import dcformat
from dcformat.codecs import Mode
from dcformat.dense import from_dense
from dcformat.graph import Graph, Quantize, Requantize
from dcformat.model import Model
from dcformat.records import replace
from dcformat_pruning.calibration.calibration_inputs import random_inputs
from dcformat_pruning.calibration.channel_scales import rescaled
from dcformat_pruning.calibration.layers import UsedTensor, find_layers
from dcformat_pruning.calibration.measures import Measure
from dcformat_pruning.calibration.price_search import CalibrationGoal, search
from dcformat_pruning.calibration.pruning_masks import CRITERIA, Mask, densities, masks, pruned
from dcformat_pruning.calibration.refinement import Teacher
from dcformat_pruning.calibration.sensitivity import Sensitivity, measure_sensitivity
from dcformat_pruning.calibration.torch_network import TorchNetwork
from dcformat_pruning.calibration.walk import Walk

#: The number of random inputs.
RANDOM_INPUTS = 128
#: Inputs that are differentiated together.
_BATCH = 16
#: One input in `_KEPT` is kept to compare the networks, if there are at least twice as many inputs.
_KEPT = 5

NamedInputs = Mapping[str, npt.NDArray[Any]]


class CalibrationTrial(NamedTuple):
    """A compressed network, and its comparison with the dense one.

    Attributes
    ----------
    price : float
        The change that a bit was worth.
    model : Model
    packed : bytes
        The file.
    change : float
        The measure, on inputs that the compression did not see (if there are enough).
    drop : float
        The percentage of outputs whose greatest number is at another place; None if no output is compared by classes.
    density : float
        The share of the weights other than zero.
    """

    price: float
    model: Model
    packed: bytes
    change: float
    drop: float | None
    density: float

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self.packed)

    @property
    def cost(self) -> float:
        """The change plus the price of the file's bits."""
        return self.change + self.price * 8 * self.size


class CalibrationOptions(NamedTuple):
    """Options of compression without training.

    Attributes
    ----------
    density : float
        The largest share of the weights that may differ from zero.
    criterion : {'obs', 'wanda', 'magnitude', 'random'}
        The choice of these weights, if they are not all.
    logits : bool
        Whether the outputs are logits, so that they are compared as probabilities.
    outputs : tuple of str
        The outputs to compare; all by default.
    probes : int
        Number of random gradients to take at each input.
    refine : int
        Number of gradient steps towards the dense network's outputs that each trial takes after coding, and that a
        network takes in all while it is pruned. With 0, there is no gradient descent.
    mode : {'fast', 'small', 'tiny'}
        How the file is coded.
    """

    density: float = 1.0
    criterion: str = "obs"
    logits: bool = False
    outputs: tuple[str, ...] = ()
    probes: int = 2
    refine: int = 0
    mode: Mode = "tiny"


def compress_calibrated(
    model: Model,
    inputs: NamedInputs | None = None,
    goal: CalibrationGoal = CalibrationGoal("change", 0.01),  # noqa: B008 - immutable
    options: CalibrationOptions = CalibrationOptions(),  # noqa: B008 - immutable
    progress: Callable[[CalibrationTrial, bool], None] = lambda trial, best: None,
) -> CalibrationTrial:
    """Compress a network without training, and return the best of the trials that are within the goal.

    Parameters
    ----------
    model : Model
        A model with a graph of float32 numbers.
    inputs : mapping of str to ndarray, optional
        Calibration inputs by name, as a session takes them. By default, random numbers.
    goal : CalibrationGoal
    options : CalibrationOptions
    progress : callable
        Called with each trial, and whether it is the best so far.

    Raises
    ------
    GoalError
        No trial is within the goal.
    InputError
        The inputs do not fit the network.
    ValueError
        An option is not one of those above; inputs or weights are not finite; or the network computes with integers.
    """
    goal.check()
    _check(model, options)
    compressor = Calibrated(model, inputs, options)
    compressor.can_reach(goal)
    best: CalibrationTrial | None = None
    for made, better in search(goal, compressor.first_price(goal), compressor.attempt):
        assert isinstance(made, CalibrationTrial)
        best = made if better else best
        progress(made, better)
    assert best is not None
    return best


def _check(model: Model, options: CalibrationOptions) -> None:
    if not 0 < options.density <= 1:
        raise ValueError(f"density: expected a number above 0 and at most 1, found {options.density:g}")
    if options.criterion not in CRITERIA:
        raise ValueError(f"criterion: expected {', '.join(CRITERIA)}, found {options.criterion!r}")
    if model.graph is None:
        raise ValueError("expected a network, found tensors without one")
    if any(isinstance(node, Quantize | Requantize) for node in model.graph.nodes):
        raise ValueError(
            "expected a network of floats, found one of integers; compress the network that it was made from"
        )
    names = [output.name for output in model.graph.outputs]
    if unknown := sorted(set(options.outputs) - set(names)):
        raise ValueError(f"output {unknown[0]!r}: expected one of {', '.join(names)}")


class Calibrated:
    """The analysis of a network before it is compressed, and its compression at any price.

    Attributes
    ----------
    network : TorchNetwork
        The dense network.
    batches : list of list of Tensor
        The inputs to compress with.
    measure : Measure
    layers : list of UsedTensor
    walk : Walk
        The compression of all layers, without scales of rows.
    """

    def __init__(self, model: Model, inputs: NamedInputs | None, options: CalibrationOptions) -> None:
        assert model.graph is not None
        self.model, self.options = model, options
        self.network = TorchNetwork(model)
        for name, tensor in self.network.tensors.items():
            if torch.isnan(tensor).any():
                raise ValueError(f"tensor {name!r}: expected numbers, found NaN")
        arrays = _taken(model.graph, self.network, inputs)
        seen, kept = _divided(arrays)
        self.batches = _batches(seen)
        self._kept = _batches(kept)
        self.measure = Measure(self.network, options.logits, options.outputs)
        with torch.no_grad():
            self._dense = [self.network.run(batch) for batch in self._kept]
        _check_outputs(self._dense)
        self.measure.fit(self._dense)
        self.layers: list[UsedTensor] = find_layers(model.graph, {n: t.shape for n, t in model.tensors.items()})
        self._teacher = Teacher(self.network, self.batches, self.measure)
        self.walk = self._pruned(self.batches)

    def _pruned(self, batches: Sequence[Sequence[Tensor]]) -> Walk:
        """Choose the weights that may stay; the others are zero, and gradient steps make up for them."""
        options, network, may = self.options, self.network, dict[str, Mask]()

        def sensitivity() -> Sensitivity:
            return measure_sensitivity(network, self.layers, batches, self.measure, options.probes)

        found = sensitivity()
        if not any(found.terms.values()):
            raise ValueError("expected outputs that depend on weights at the calibration inputs, found none that does")
        rounds = densities(options.density, options.refine > 0)
        for number, density in enumerate(rounds):
            may = masks(network, self.layers, found, density, options.criterion)
            if options.refine:
                others = {layer.name: network.tensors[layer.name] for layer in self.layers if found.matters(layer.name)}
                left = {**others, **pruned(network, self.layers, found, may)}
                # The last round, after which nothing is pruned, takes half of the steps.
                share = 2 if number == len(rounds) - 1 else 2 * len(rounds) - 2
                network = network.with_tensors(self._teacher.refine(left, max(1, options.refine // share)))
                found = sensitivity()
        return Walk(network, self.layers, found, batches, may)

    def can_reach(self, goal: CalibrationGoal) -> None:
        """Raise `ValueError` for a drop of outputs that are not classes."""
        if goal.kind == "drop" and not any(map(_tells_classes, self.measure.kinds, self._dense[0])):
            raise ValueError(
                "drop: expected outputs with a number for each class, found others; limit the change instead"
            )

    def first_price(self, goal: CalibrationGoal) -> float:
        """Return a price from which the search for a goal may start."""
        weights = sum(int(np.prod(layer.shape)) for layer in self.layers)
        return (goal.limit if goal.kind == "change" else 0.02) * 1.4 / weights

    def attempt(self, price: float) -> CalibrationTrial:
        """Compress the network at a price."""
        found, grids = self.walk.compress(price)
        trial = self.trial(price, found, self.compared(found))
        network = self.network.with_tensors(found)
        scaled, scales = rescaled(self.network, network, self.walk.channels, self.batches, grids)
        both = {**found, **scaled}
        compared = self.compared(both)
        if compared[0] < trial.change and (other := self.trial(price, both, compared)).cost < trial.cost:
            trial, found, grids = other, both, scales
        if self.options.refine:
            refined = {
                **found,
                **self._teacher.refine({name: found[name] for name in grids}, self.options.refine, grids),
            }
            compared = self.compared(refined)
            trial = self.trial(price, refined, compared) if compared[0] < trial.change else trial
        return trial

    def trial(
        self, price: float, found: Mapping[str, Tensor], compared: tuple[float, list[list[Tensor]]]
    ) -> CalibrationTrial:
        """Pack compressed tensors, whose outputs were compared."""
        change, outputs = compared
        tensors = {
            name: from_dense(name, found[name].numpy()) if name in found else tensor
            for name, tensor in self.model.tensors.items()
        }
        model = replace(self.model, tensors=tensors, self_test=None)
        packed = dcformat.dumps(model, mode=self.options.mode)
        return CalibrationTrial(price, model, packed, change, self._drop(outputs), self._density(found))

    @torch.no_grad()
    def compared(self, tensors: Mapping[str, Tensor]) -> tuple[float, list[list[Tensor]]]:
        """Return a network's distance from the dense one at the inputs that are kept for that, and its outputs."""
        outputs = [self.network.with_tensors(tensors).run(batch) for batch in self._kept]
        count = sum(len(batch[0]) for batch in self._kept)
        return sum(self.measure.change(a, b) for a, b in zip(self._dense, outputs, strict=True)) / count, outputs

    def _drop(self, outputs: Sequence[Sequence[Tensor]]) -> float | None:
        shares = [
            (a[place].argmax(-1) != b[place].argmax(-1)).float().mean().item()
            for a, b in zip(self._dense, outputs, strict=True)
            for place, kind in enumerate(self.measure.kinds)
            if _tells_classes(kind, a[place])
        ]
        return 100 * sum(shares) / len(shares) if shares else None

    def _density(self, tensors: Mapping[str, Tensor]) -> float:
        matrices = [tensors[layer.name] for layer in self.layers if layer.uses and layer.name in tensors]
        return sum(int(m.count_nonzero()) for m in matrices) / max(1, sum(m.numel() for m in matrices))


def _tells_classes(kind: str | None, output: Tensor) -> bool:
    """Return whether an output is compared by classes: probabilities, or numbers in one dimension of several."""
    return kind in ("probabilities", "logits") or (
        kind in ("numbers", "chances") and output.ndim == 2 and output.shape[1] > 1
    )


def _taken(graph: Graph, network: TorchNetwork, inputs: NamedInputs | None) -> list[Tensor]:
    """Return the calibration inputs as float32 arrays with the batch first."""
    given = random_inputs(graph, network.shapes, network.tensors, RANDOM_INPUTS) if inputs is None else inputs
    for name, array in given.items():
        if isinstance(array, np.ndarray) and array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"input {name!r}: expected finite numbers, found NaN or infinity")
    arrays, count = Ports(graph, network.shapes).take(given)
    if not count:
        raise ValueError("calibration inputs: expected at least one, found none")
    return [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]


def _divided(arrays: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the inputs to compress with, and those to compare the networks with: the same ones if there are few."""
    count = len(arrays[0])
    if count < 2 * _KEPT:
        return list(arrays), list(arrays)
    kept = torch.arange(count) % _KEPT == 0
    return [array[~kept] for array in arrays], [array[kept] for array in arrays]


def _batches(arrays: Sequence[Tensor]) -> list[list[Tensor]]:
    return [[array[k : k + _BATCH] for array in arrays] for k in range(0, len(arrays[0]), _BATCH)]


def _check_outputs(outputs: Sequence[Sequence[Tensor]]) -> None:
    if not all(torch.isfinite(value).all() for batch in outputs for value in batch):
        raise ValueError("calibration inputs: expected finite outputs of the network, found NaN or infinity")
