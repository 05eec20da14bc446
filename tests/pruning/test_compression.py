"""Compressing a user's own network: the search, the saved stages, and the errors for bad input."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dcformat_pruning import Compression, Goal, RunControl, Settings, Trial, compress
from dcformat_pruning.lenets import CheckpointError
from dcformat_pruning.masks import PruningError, weight_names
from dcformat_pruning.tracing import UnsupportedModuleError
from dcformat_pruning.training import DivergenceError
from torch import Tensor, nn

import dcformat
from dcformat.datasets import DataError

pytestmark = pytest.mark.needs_compiler

QUICK = Settings(epochs=3, dense_epochs=4, trials=2, batch=32, lr=1e-2, clusters=8, metadata={"input": "bars"})


class Residual(nn.Module):
    """A network with batch norms, a depthwise convolution and a sum, so it is not a chain."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.head = nn.Linear(8 * 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(x + self.depth(x))
        return self.head(torch.flatten(nn.functional.max_pool2d(x, 2), 1))


def images(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images of 8 x 8 pixels in three classes: a bright bar at one of three heights."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (n,), generator=generator)
    x = 0.5 * torch.randn(n, 1, 8, 8, generator=generator)
    for image, label in zip(x, labels.tolist(), strict=True):
        image[0, 2 * label + 1] += 1.5
    return x, labels


def residual() -> Residual:
    torch.manual_seed(0)
    return Residual()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Compression, Residual, Path, list[Trial]]:
    """A compression of `Residual`, its module, its saved stages, and the trials in order."""
    module, folder, seen = residual(), tmp_path_factory.mktemp("stages"), list[Trial]()
    made = compress(
        module, train=images(256), validate=images(128, 1), goal=Goal(max_drop=70.0), settings=QUICK,
        control=RunControl(folder, watch=seen.append),
    )  # fmt: skip
    return made, module, folder, seen


def test_the_file_holds_the_module_that_was_compressed(
    run: tuple[Compression, Residual, Path, list[Trial]],
) -> None:
    made, module, _, seen = run
    assert made.trials == tuple(seen)
    best = min((t for t in seen if made.dense - t.metric <= 0.7), key=lambda t: t.size)
    assert (len(made.data), made.metric) == (best.size, best.metric)
    empty = [n for n, p in module.named_parameters() if p.ndim > 1 and not bool(p.any())]
    assert made.note == (f"pruned to nothing: {', '.join(empty)}" if empty else "")
    packed = dcformat.load(made.data)
    assert set(packed.tensors) == {
        f"{layer}.{name}" for layer in ("stem", "depth", "head") for name in ("weight", "bias")
    }
    own = dict(module.named_parameters())
    for name in ("stem.weight", "depth.weight"):
        assert len(np.unique(packed.tensors[name].to_dense())) <= 9
    assert sum(int((own[n] != 0).sum()) for n in own if own[n].ndim > 1) == made.stages[-1].weights or len(seen) > 1
    x, labels = images(128, 1)
    with torch.no_grad():
        right = (module(x).argmax(1) == labels).float().mean()
    assert float(right) == pytest.approx(made.metric, abs=0.01)


def test_the_metadata_has_the_metric_of_each_stage(run: tuple[Compression, Residual, Path, list[Trial]]) -> None:
    made = run[0]
    best = next(t for t in made.trials if t.size == len(made.data))
    own = {s.stage: s.metric for s in made.stages}
    figures = [own["dense"], *(own[f"{name}-{best.number}"] for name in ("prune", "share", "settle")), made.metric]
    names = ("dense", "prune", "share", "settle", "file")
    expected = ", ".join(f"{name} {figure:.4f}" for name, figure in zip(names, figures, strict=True))
    assert made.model.metadata == {"input": "bars", "metrics": expected}


@pytest.mark.slow
def test_a_resumed_run_ends_with_the_same_bytes(
    run: tuple[Compression, Residual, Path, list[Trial]], tmp_path: Path
) -> None:
    made, _, folder, _ = run
    saved = sorted(folder.iterdir())
    assert [path.stem for path in saved[:5]] == ["00-dense", "01-prune-1", "02-share-1", "03-settle-1", "04-pack-1"]
    for path in saved[:3]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    again = compress(
        residual(), train=images(256), validate=images(128, 1), goal=Goal(max_drop=70.0), settings=QUICK,
        control=RunControl(tmp_path),
    )  # fmt: skip
    assert again.data == made.data
    assert again.trials == made.trials
    with pytest.raises(CheckpointError, match=r"expected a stage of .*max_drop=4.0.*found one of"):
        compress(
            residual(), train=images(256), validate=images(128, 1), goal=Goal(max_drop=4.0), settings=QUICK,
            control=RunControl(tmp_path),
        )  # fmt: skip


class Pair(nn.Module):
    """Tokens and a mask go in by name; a class for each token and a number come out."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(6, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.recurrent = nn.GRU(8, 8, batch_first=True)
        self.tag = nn.Linear(8, 2)
        self.number = nn.Linear(8, 1)

    def forward(self, tokens: Tensor, weight: Tensor) -> dict[str, Tensor]:
        x = self.embed(tokens) * weight[..., None]
        x = x + self.attention(x, x, x, need_weights=False)[0]
        x, _ = self.recurrent(x)
        return {"tag": self.tag(x), "number": self.number(x).mean(1)}


@pytest.mark.slow
def test_named_inputs_several_outputs_and_a_step_of_ones_own() -> None:
    torch.manual_seed(0)
    module = Pair()
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(6, (96, 5), generator=generator)
    inputs = {"tokens": tokens, "weight": torch.ones(96, 5)}
    labels = {"tag": tokens % 2, "number": tokens.float().mean(1, keepdim=True)}
    batches = [({k: v[i : i + 16] for k, v in inputs.items()}, {k: v[i : i + 16] for k, v in labels.items()})
               for i in range(0, 96, 16)]  # fmt: skip
    asked = []

    def step(batch: Any) -> Tensor:
        asked.append(len(batch[0]["tokens"]))
        found = module(**batch[0])
        tags = nn.functional.cross_entropy(found["tag"].flatten(0, 1), batch[1]["tag"].flatten())
        return tags + nn.functional.mse_loss(found["number"], batch[1]["number"])

    settings = Settings(epochs=3, dense_epochs=12, trials=1, lr=2e-2, distill=0.3)
    made = compress(module, train=batches, validate=batches, goal=Goal(density=0.5), settings=settings, step=step)
    total = sum(p.numel() for p in module.parameters() if p.ndim > 1)
    assert made.trials[0].keep == round(0.5 * total)
    assert set(asked) == {16}
    assert made.dense > 0.6
    assert {"attention.in_proj_weight", "recurrent.weight_hh_l0", "embed.weight"} <= set(made.model.tensors)
    assert [output.name for output in made.model.graph.outputs] == ["tag", "number"]  # type: ignore[union-attr]


def corners(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Points of a square in three classes: the distance from the middle."""
    x = torch.rand(n, 2, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return x, torch.bucketize(x.norm(dim=1), torch.tensor([0.5, 0.9]))


@pytest.mark.slow
def test_the_first_network_holds_a_largest_drop_and_needs_no_flatten() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 14), nn.ReLU(), nn.Linear(14, 3))
    settings = Settings(epochs=10, dense_epochs=10, trials=1, batch=32, lr=1e-2)
    made = compress(module, train=corners(512, 0), validate=corners(512, 1), goal=Goal(max_drop=1.0), settings=settings)
    assert made.dense > 0.9
    assert made.reached and made.trials[0].keep < 0.75 * 554


def refused(error: type[Exception], message: str, **changes: Any) -> None:
    """Check that a compression with other arguments fails, and leaves the module as it was."""
    module = changes.pop("module", None) or nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    before = copy.deepcopy(module.state_dict())
    given = {"train": images(32), "validate": images(32), "goal": Goal(density=0.5), "settings": Settings(epochs=3)}
    with pytest.raises(error, match=message):
        compress(module, **{**given, **changes})
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_bad_data_is_refused_in_one_line() -> None:
    x, y = images(32)
    refused(DataError, "^train: expected at least one batch, found none$", train=[])
    refused(DataError, "^train: expected a loader that can be iterated again, found an iterator", train=iter([(x, y)]))
    refused(DataError, "^train: expected as many labels as inputs, and at least one, found 31 and 32", train=(x, y[1:]))
    spoiled = x.clone()
    spoiled[3, 0, 2, 2] = torch.nan
    refused(DataError, "^train, batch 1: expected finite numbers, found NaN or infinity$", train=[(spoiled, y)])
    refused(
        DataError, r"^train: expected batches \(inputs, labels\), found a sequence of 3; .* step", train=[(x, y, y)]
    )
    refused(DataError, "^train: expected a loader or a tuple .inputs, labels., found int", train=3)
    refused(DataError, r"^labels: expected classes of shape \(batch, ...\) for outputs", train=[(x, y[:, None, None])])
    refused(DataError, "^validate: expected at least one batch, found none$", validate=[])


@pytest.mark.parametrize("wrong", ["labels", "inputs"])
def test_a_later_batch_that_does_not_fit_is_refused_in_one_line(wrong: str) -> None:
    x, y = images(32)
    later = (x, y - 3) if wrong == "labels" else (x[..., 1:], y)
    message = "^train: expected batches that fit the network, found (Index|Runtime)Error for one: [^\n]*$"
    refused(DataError, message, train=[(x, y), later], validate=lambda m: float(m[1].weight.norm()))


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")])
def test_lack_of_memory_is_not_taken_for_a_batch_that_does_not_fit(error: Exception) -> None:
    class Large(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            raise error

    refused(MemoryError, "^train; take smaller batches$", module=Large(64, 3))


@pytest.mark.parametrize("module", [nn.Linear(64, 3).requires_grad_(False), nn.BatchNorm1d(64)])
def test_a_network_without_weights_to_prune_is_refused(module: nn.Module) -> None:
    x, y = images(32)
    message = "expected weights to prune .trainable, of two or more dimensions., found none$"
    refused(PruningError, message, module=module, train=(x.flatten(1), y))


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (lambda module: 0.9, "^validate: expected the network to be better than one whose weights are .* 0.9 and 0.9"),
        (lambda module: float("nan"), "^validate: expected a finite number, found nan$"),
        (lambda module: "good", "^validate: expected a number, found str$"),
    ],
)  # fmt: skip
def test_metrics_that_cannot_be_used(metric: Callable[[nn.Module], Any], message: str) -> None:
    refused(DataError, message, validate=metric)


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        ({}, "^goal: expected one of max_drop, size and density, found none"),
        ({"size": 3, "density": 0.1}, "found size, density$"),
        ({"max_drop": -1.0}, "^max_drop: expected at least 0 points, found -1.0"),
        ({"size": 0}, "^size: expected at least 1 byte, found 0"),
        ({"density": 1.5}, "^density: expected above 0 and at most 1, found 1.5"),
    ],
)
def test_goals_that_make_no_sense(goal: dict[str, Any], message: str) -> None:
    with pytest.raises(PruningError, match=message):
        Goal(**goal)


@pytest.mark.parametrize("sharing", ["straight-through", "portions"])
def test_layers_share_few_values_in_both_ways(sharing: Any) -> None:
    settings = Settings(epochs=3, dense_epochs=4, batch=32, lr=1e-2, clusters=5, sharing=sharing)
    made = compress(residual(), train=images(96), validate=images(64, 1), goal=Goal(density=0.4), settings=settings)
    for name in weight_names(made.module):
        weight = made.module.get_parameter(name).detach()
        assert 1 < len(torch.unique(weight[weight != 0])) <= 5, name


def test_a_way_of_sharing_that_does_not_exist() -> None:
    with pytest.raises(PruningError, match=r"^sharing: expected straight-through or portions, found 'both'$"):
        Settings(sharing="both")  # type: ignore[arg-type]


def test_a_density_that_would_prune_layers_to_nothing() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3))
    message = "^density: 0.001 of 536 weights keeps 1, fewer than the 2 layers; expected at least 0.0037$"
    refused(PruningError, message, module=module, goal=Goal(density=0.001))


def test_all_unsupported_operators_are_named_before_training() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(64, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.fc(torch.flatten(x, 1))
            return torch.linalg.det(x[:, :, None] * x[:, None, :])[:, None] + torch.special.bessel_j0(x)

    refused(UnsupportedModuleError, "(?s)linalg_det.*bessel_j0|bessel_j0.*linalg_det", module=Odd())


def test_a_failure_in_the_first_network_gives_the_dense_one_back() -> None:
    settings = Settings(epochs=3, batch=4, lr=1e38)
    refused(DivergenceError, "^prune, epoch 1: ", settings=settings, validate=lambda m: float(m[1].weight.norm()))


@pytest.mark.slow
def test_a_better_network_teaches() -> None:
    x, labels = images(256)

    class Sure(nn.Module):
        """A teacher that knows the classes of the opposite order."""

        def forward(self, x: Tensor) -> Tensor:
            return 20 * x[:, 0, [5, 3, 1]].mean(2)

    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 3))
    settings = Settings(epochs=(8, 2, 1), dense_epochs=4, batch=32, lr=1e-2, distill=1.0)
    given: dict[str, Any] = {"train": (x, labels), "validate": (x, labels), "goal": Goal(density=0.5)}
    made = compress(module, **given, settings=settings, teacher=Sure())
    assert made.dense > 0.9
    with torch.no_grad():
        agreement = (module(x).argmax(1) == Sure()(x).argmax(1)).float().mean()
    assert float(agreement) > 0.9


def test_a_teacher_that_does_not_fit_is_refused() -> None:
    message = r"^teacher: expected outputs of the network's shapes, \(2, 3\), found \(2, 4\)$"
    refused(DataError, message, teacher=nn.Sequential(nn.Flatten(), nn.Linear(64, 4)))
    message = "^teacher: expected the network's inputs to fit it, found RuntimeError for one: mat1 and mat2"
    refused(DataError, message, teacher=nn.Linear(64, 3))
