"""Compression without training, from a model and inputs to a file."""

from __future__ import annotations

from typing import Any

import dcformat_runtime
import numpy as np
import pytest
import torch
from dcformat_pruning.calibration import (
    CalibrationGoal,
    CalibrationOptions,
    CalibrationTrial,
    GoalError,
    compress_calibrated,
)
from dcformat_pruning.calibration.post_training import Calibrated
from dcformat_pruning.calibration.torch_network import TorchNetwork
from dcformat_runtime import InputError

import dcformat
from dcformat import Model
from dcformat.graph import (
    LSTM,
    Conv,
    Flatten,
    Gather,
    Graph,
    Linear,
    MatMul,
    Output,
    Port,
    Quantize,
    Reduce,
    ReLU,
    Softmax,
    Unary,
    Where,
)

torch.set_num_threads(1)
RNG = np.random.default_rng(0)


def tensor(name: str, *shape: int) -> dcformat.Tensor:
    scale = np.sqrt(2 / max(1, np.prod(shape[1:], dtype=int)))
    return dcformat.from_dense(name, (RNG.standard_normal(shape) * scale).astype(np.float32))


def model_of(shapes: dict[str, tuple[int, ...]], graph: Graph) -> Model:
    return Model({name: tensor(name, *shape) for name, shape in shapes.items()}, graph)


@pytest.fixture(scope="module")
def classifier() -> Model:
    """A network of pictures with an ordinary and a depthwise convolution, whose outputs are probabilities."""
    shapes = {
        "c.weight": (8, 3, 3, 3), "c.bias": (8,), "d.weight": (8, 1, 3, 3), "d.bias": (8,), "f.weight": (4, 8),
        "f.bias": (4,),
    }  # fmt: skip
    nodes = (
        Conv((0,), "c.weight", "c.bias", padding=(1, 1), padding_end=(1, 1)), ReLU((1,)),
        Conv((2,), "d.weight", "d.bias", stride=(2, 2), groups=8), ReLU((3,)), Reduce((4,), "mean", (1, 2)),
        Linear((5,), "f.weight", "f.bias"), Softmax((6,)),
    )  # fmt: skip
    return model_of(shapes, Graph.sequential((3, 8, 8), nodes))


@pytest.fixture(scope="module")
def pictures() -> dict[str, Any]:
    x = RNG.standard_normal((40, 3, 8, 8)).astype(np.float32)
    return {"input": x + np.roll(x, 1, 3) + np.roll(x, 1, 2)}


def dense(model: Model) -> dict[str, Any]:
    return {name: found.to_dense() for name, found in model.tensors.items()}


def test_the_change_is_that_of_the_packed_file(classifier: Model, pictures: dict[str, Any]) -> None:
    made = compress_calibrated(classifier, pictures, CalibrationGoal("change", 0.005))
    assert 0 < made.change <= 0.005
    p, q = (
        dcformat_runtime.load(content)(pictures["input"][::5]).astype(np.float64)
        for content in (dcformat.dumps(classifier), made.packed)
    )
    assert made.change == pytest.approx((p * np.log(p / q)).sum(1).mean(), rel=1e-3)
    assert made.drop == pytest.approx(100 * (p.argmax(1) != q.argmax(1)).mean())
    assert made.size < 0.5 * len(dcformat.dumps(classifier))


def test_a_size_is_kept_and_used(classifier: Model, pictures: dict[str, Any]) -> None:
    trials: list[tuple[CalibrationTrial, bool]] = []
    made = compress_calibrated(
        classifier, pictures, CalibrationGoal("size", 340), progress=lambda trial, best: trials.append((trial, best))
    )
    assert 300 < made.size <= 340
    assert [trial for trial, best in trials if best][-1] == made
    assert made.change == min(trial.change for trial, _ in trials if trial.size <= 340)


@pytest.mark.parametrize("criterion", ["obs", "wanda", "magnitude", "random"])
def test_a_density_is_an_upper_limit(classifier: Model, pictures: dict[str, Any], criterion: str) -> None:
    made = compress_calibrated(
        classifier,
        pictures,
        CalibrationGoal("change", 10),
        CalibrationOptions(density=0.5, criterion=criterion, probes=1),
    )
    weights = [values for name, values in dense(made.model).items() if name.endswith("weight")]
    entries, size = (sum(count) for count in zip(*((np.count_nonzero(w), w.size) for w in weights), strict=True))
    assert entries <= 0.5 * size + (4 if criterion == "wanda" else 1)
    assert made.density == pytest.approx(entries / size)


def test_rows_have_scales_of_their_own_where_these_pay() -> None:
    """Pruning by magnitude takes most of the variance of channels."""
    rng = np.random.default_rng(1)
    nodes = (Linear((0,), "v", "a"), ReLU((1,)), Linear((2,), "w", "b"), Softmax((3,)))
    shapes = {"v": (48, 96), "a": (48,), "w": (8, 48), "b": (8,)}
    tensors = {
        name: dcformat.from_dense(name, (3 * rng.standard_normal(shape) * shape[-1] ** -0.5).astype(np.float32))
        for name, shape in shapes.items()
    }
    model = Model(tensors, Graph.sequential((96,), nodes))
    x = {"input": rng.standard_normal((100, 96)).astype(np.float32)}

    def scales(price: float) -> int:
        options = CalibrationOptions(density=0.15, criterion="magnitude")
        rows = dense(Calibrated(model, x, options).attempt(price).model)["v"]
        return len({float(np.abs(row[row != 0]).min()) for row in rows if row.any()})

    assert scales(1e-6) > 24
    assert scales(1e-3) < 4


def test_labels_of_a_sigmoid_that_are_never_likely_stay_so() -> None:
    nodes = (Linear((0,), "w", "b"), Unary((1,), "sigmoid"))
    bias = dcformat.from_dense("b", np.array([0, 1, -1, *[-12] * 9], np.float32))
    model = Model({"w": tensor("w", 12, 6), "b": bias}, Graph.sequential((6,), nodes))
    x = RNG.standard_normal((40, 6)).astype(np.float32)
    made = compress_calibrated(model, {"input": x}, CalibrationGoal("change", 0.1))
    p, q = (
        dcformat_runtime.load(content)(x[::5]).astype(np.float64) for content in (dcformat.dumps(model), made.packed)
    )
    labels = (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).sum(1)
    assert made.change == pytest.approx(labels.mean(), rel=1e-3) and made.change <= 0.1
    assert q[:, 3:].max() < 0.01


@pytest.mark.slow
def test_columns_of_wide_matrices_are_treated_in_blocks() -> None:
    model = model_of({"w": (4, 1500), "b": (4,)}, Graph.sequential((1500,), [Linear((0,), "w", "b")]))
    made = compress_calibrated(model, goal=CalibrationGoal("change", 0.01))
    assert made.change <= 0.01 and made.size < 0.4 * len(dcformat.dumps(model))


@pytest.mark.slow
def test_gradient_steps_keep_goals_and_are_the_same_each_time(classifier: Model, pictures: dict[str, Any]) -> None:
    options = CalibrationOptions(density=0.4, probes=1, refine=4)
    few = {"input": pictures["input"][:16]}
    first, second = (compress_calibrated(classifier, few, CalibrationGoal("size", 400), options) for _ in range(2))
    assert first.density <= 0.41 and first.size <= 400
    assert first.packed == second.packed


def test_values_between_layers_exist_for_one_batch_at_a_time(
    classifier: Model, pictures: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    walk = Calibrated(classifier, pictures, CalibrationOptions()).walk
    plain, ran = TorchNetwork.node, list[int]()

    def node(network: TorchNetwork, number: int, *rest: Any) -> torch.Tensor:
        ran.append(number)
        return plain(network, number, *rest)

    monkeypatch.setattr(TorchNetwork, "node", node)
    walk.compress(1e-5)
    # Two batches of both networks; nothing reads what comes after the last layer.
    assert len(walk.batches) == 2 and ran == [0, 1] * 4 + [2, 3, 4] * 4


def test_the_same_inputs_give_the_same_file(classifier: Model, pictures: dict[str, Any]) -> None:
    first, second = (compress_calibrated(classifier, pictures, CalibrationGoal("change", 0.05)) for _ in range(2))
    assert first.packed == second.packed


def test_random_inputs_take_the_place_of_none(classifier: Model) -> None:
    assert compress_calibrated(classifier, goal=CalibrationGoal("change", 0.05)).change <= 0.05


def test_one_input_is_enough(classifier: Model, pictures: dict[str, Any]) -> None:
    one = {"input": pictures["input"][:1]}
    assert compress_calibrated(classifier, one, CalibrationGoal("change", 0.01)).change <= 0.01


def test_tables_and_products_may_share_a_tensor() -> None:
    nodes = (Gather(("e", 0)), Linear((1,), "w"), ReLU((2,)), Linear((3,), "e"))
    graph = Graph((Port((6,), "tokens", "int64"),), nodes, (Output(4, "logits"),))
    model = model_of({"e": (20, 8), "w": (8, 8)}, graph)
    made = compress_calibrated(model, goal=CalibrationGoal("change", 0.02), options=CalibrationOptions(logits=True))
    assert made.change <= 0.02 and made.size < len(dcformat.dumps(model, mode="tiny"))


def test_recurrent_layers_and_products_with_tensors() -> None:
    nodes = (LSTM((0,), "w", "r", "b"), MatMul((1, "m")), Flatten((2,)))
    model = model_of({"w": (16, 5), "r": (16, 4), "b": (16,), "m": (8, 3)}, Graph.sequential((7, 5), nodes))
    assert compress_calibrated(model, goal=CalibrationGoal("change", 0.01)).change <= 0.01


def test_what_outputs_do_not_depend_on_smoothly_stays() -> None:
    nodes = (Where(("mask", 0, -1e9)), Linear((1,), "w"))
    mask = dcformat.from_dense("mask", np.array([1, 1, 1, 1, 0.75, 1], np.float32))
    model = Model({"mask": mask, "w": tensor("w", 4, 6)}, Graph.sequential((6,), nodes))
    made = compress_calibrated(model, goal=CalibrationGoal("change", 0.01))
    assert dense(made.model)["mask"].tolist() == [1, 1, 1, 1, 0.75, 1]


def test_dead_units_cost_nothing(classifier: Model, pictures: dict[str, Any]) -> None:
    bias = np.array([-1e4, *np.zeros(7)], np.float32)
    model = Model({**classifier.tensors, "c.bias": dcformat.from_dense("c.bias", bias)}, classifier.graph)
    made = compress_calibrated(model, pictures, CalibrationGoal("change", 0.01))
    assert made.change <= 0.01
    entries = dense(made.model)["d.weight"][0]
    assert len(np.unique(entries[entries != 0])) <= 1  # each is zero or the value with the fewest bits


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[:, :2], r"input shape: expected \(batch, 3, 8, 8\) .*, found \(40, 2, 8, 8\)"),
        (lambda x: x[:0], "calibration inputs: expected at least one, found none"),
        (lambda x: np.where(x > 2, np.nan, x), "input 'input': expected finite numbers, found NaN or infinity"),
    ],
)
def test_inputs_that_do_not_fit(classifier: Model, pictures: dict[str, Any], change: Any, message: str) -> None:
    with pytest.raises((ValueError, InputError), match=message):
        compress_calibrated(classifier, {"input": change(pictures["input"])})


def test_outputs_that_are_not_finite() -> None:
    model = model_of({"w": (2, 6)}, Graph.sequential((6,), [Unary((0,), "exp"), Linear((1,), "w")]))
    with pytest.raises(ValueError, match="calibration inputs: expected finite outputs of the network"):
        compress_calibrated(model, {"input": np.full((3, 6), 100, np.float32)})


def test_names_that_do_not_fit(classifier: Model, pictures: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="inputs: expected 'input' float32"):
        compress_calibrated(classifier, {"image": pictures["input"]})


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        (CalibrationGoal("size", 10), r"goal not reached: expected at most 10 bytes, found \d+ bytes at best"),
        (CalibrationGoal("size", -1), "size: expected a number above 0, found -1"),
        (CalibrationGoal("accuracy", 1), "goal: expected size, change, drop, found 'accuracy'"),
    ],
)
def test_goals_that_cannot_be_reached(
    classifier: Model, pictures: dict[str, Any], goal: CalibrationGoal, message: str
) -> None:  # fmt: skip
    with pytest.raises(ValueError, match=message) as caught:
        compress_calibrated(classifier, pictures, goal, CalibrationOptions(probes=1))
    assert isinstance(caught.value, GoalError) == message.startswith("goal not")


def test_a_drop_needs_classes() -> None:
    model = model_of({"w": (1, 6)}, Graph.sequential((6,), [Linear((0,), "w")]))
    with pytest.raises(ValueError, match="drop: expected outputs with a number for each class"):
        compress_calibrated(model, goal=CalibrationGoal("drop", 1))


def test_networks_that_cannot_be_compressed() -> None:
    quantised = Model({}, Graph.sequential((3,), [Quantize((0,), 0.5, 10, 0, 20)]))
    with pytest.raises(ValueError, match="expected a network of floats, found one of integers"):
        compress_calibrated(quantised)
    with pytest.raises(ValueError, match="expected a network, found tensors without one"):
        compress_calibrated(Model({}))
    no_weights = Model({}, Graph.sequential((3,), [ReLU((0,))]))
    with pytest.raises(ValueError, match="found none that does"):
        compress_calibrated(no_weights)
