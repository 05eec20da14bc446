"""Data-parallel training under `torchrun`: each process takes its share of every batch, and gradients are averaged.

All processes draw the same random numbers, so that the result is that of a single process up to the order in which
floats are added. It works with `training.fit`:

    fit(module, BatchShare(images, rank, world), plan, seed=0, constraints=(AverageGradients(module), masks))

As a program it trains a dense network and saves it:

    torchrun --nproc-per-node 2 -m dcformat_pruning.distributed lenet-300-100 weights.safetensors --epochs 4
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, distributed, nn

from dcformat_pruning.data import Augment, Images, Pool, training_data
from dcformat_pruning.lenets import build
from dcformat_pruning.training import EpochProgress, TrainingPlan, evaluate, fit


class BatchShare:
    """A process's share of the images: it draws every batch whole, and keeps every `world`-th image of it.

    Parameters
    ----------
    images : Images or Pool
        All images, the same in every process. The whole batch is augmented, so that the result does not depend on the
        number of processes; a `Pool` costs least.
    rank, world : int
        The number of the process, from 0, and the number of processes.

    Raises
    ------
    ValueError
        `rank` is not between 0 and ``world - 1``.
    """

    def __init__(self, images: Images | Pool, rank: int, world: int) -> None:
        if not 0 <= rank < world:
            raise ValueError(f"rank: expected 0 to {world - 1}, found {rank}")
        self._images, self._rank, self._world = images, rank, world

    def steps(self, size: int) -> int:
        """Return the number of batches of an epoch, which is the same in all processes."""
        return self._images.steps(size)

    def batches(self, size: int, generator: torch.Generator, augmentation: Augment) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the process's share of one shuffled epoch; see `Images.batches`.

        Raises
        ------
        ValueError
            The batch size is not a multiple of the number of processes, whose gradients would then weigh differently.
        """
        size = min(size, len(self._images))
        if size % self._world:
            raise ValueError(f"batch: expected a multiple of {self._world} processes, found {size}")
        for x, y in self._images.batches(size, generator, augmentation):
            yield x[self._rank :: self._world], y[self._rank :: self._world]


class AverageGradients:
    """A constraint that averages the gradients over all processes; it must be the first constraint.

    Creating it sends the parameters and buffers of rank 0 to all processes. A batch norm would take its statistics from
    each process's share; use `nn.SyncBatchNorm`, or fold it.
    """

    def __init__(self, module: nn.Module) -> None:
        self._parameters = list(module.parameters())
        for tensor in [p.detach() for p in self._parameters] + list(module.buffers()):
            distributed.broadcast(tensor, src=0)

    def before_step(self, progress: float) -> None:
        """Average the gradients, in a single message."""
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        if not gradients:
            return
        flat = torch.cat([g.flatten() for g in gradients])
        distributed.all_reduce(flat)
        flat /= distributed.get_world_size()
        for gradient, part in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def after_step(self, progress: float) -> None:
        """Leave the weights unchanged, because all processes take the same step."""


@contextmanager
def process_group() -> Iterator[tuple[int, int, torch.device]]:
    """Join the process group that `torchrun` set up, and leave it at the end; yields (rank, world, device).

    The group uses NCCL if there is a GPU for each process, otherwise gloo on the CPU. Without `torchrun`, the group has
    one process.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    cuda = torch.cuda.is_available() and torch.cuda.device_count() > local
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    backend = "nccl" if cuda else "gloo"
    if "RANK" in os.environ:
        distributed.init_process_group(backend)
    else:
        store = distributed.HashStore()  # type: ignore[attr-defined]
        distributed.init_process_group(backend, store=store, rank=0, world_size=1)
    try:
        yield distributed.get_rank(), world, device
    finally:
        distributed.destroy_process_group()


def train(
    architecture: str,
    plan: TrainingPlan,
    *,
    seed: int = 0,
    data: Path | str | None = None,
    progress: EpochProgress | None = None,
) -> tuple[nn.Module, float]:
    """Train a dense network in all processes together.

    Parameters are those of `fit` and `training_data`.

    Returns
    -------
    tuple of nn.Module and float
        The network, and its accuracy on the validation images, 0 to 1.

    Raises
    ------
    ValueError
        The architecture is unknown, or the batch size is not a multiple of the number of processes.
    """
    with process_group() as (rank, world, device):
        images = training_data(data, device)
        module = build(architecture, seed).to(device)
        average = AverageGradients(module)
        shown = progress if rank == 0 else None
        fit(
            module,
            BatchShare(images.train, rank, world),
            plan,
            seed=seed,
            constraints=(average,),
            stage="train",
            progress=shown,
        )
        return module, evaluate(module, images.validation)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train a dense network in one process or under torchrun, and save its weights."""
    parser = argparse.ArgumentParser(prog="dcformat_pruning.distributed", description=main.__doc__)
    parser.add_argument("architecture")
    parser.add_argument("out", type=Path, help="where to save the weights (.safetensors)")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path)
    options = parser.parse_args(arguments)
    plan = TrainingPlan(options.epochs, options.lr, options.batch)
    module, accuracy = train(options.architecture, plan, seed=options.seed, data=options.data)
    if int(os.environ.get("RANK", "0")) == 0:
        from safetensors.torch import save_file

        state = {name: tensor.cpu().contiguous() for name, tensor in module.state_dict().items()}
        save_file(state, options.out)
        print(f"validation accuracy {100 * accuracy:.2f} %")


if __name__ == "__main__":
    main()
