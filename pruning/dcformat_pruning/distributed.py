"""Data-parallel training under `torchrun`: each process takes its share of every batch, gradients are averaged.

With as many random numbers drawn in every process as in one, the result is that of one process up to the
order in which floats are added. Works with `training.fit` as it is:

    fit(module, Shard(images, rank, world), plan, seed=0, constraints=(AverageGradients(module), masks))

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

from dcformat_pruning.data import Augmentation, Images, Pool, training_data
from dcformat_pruning.networks import build
from dcformat_pruning.training import Plan, Progress, evaluate, fit


class Shard:
    """One process's share of images: every batch is drawn whole, and of it each `world`-th image kept.

    Parameters
    ----------
    images : Images or Pool
        All images, the same in every process. Augmentation is computed for the whole batch, so that it does
        not depend on the number of processes; a `Pool` costs least.
    rank, world : int
    """

    def __init__(self, images: Images | Pool, rank: int, world: int) -> None:
        if not 0 <= rank < world:
            raise ValueError(f"rank: expected 0 to {world - 1}, found {rank}")
        self._images, self._rank, self._world = images, rank, world

    def __len__(self) -> int:
        """Count the images of all processes together: the number of steps is theirs."""
        return len(self._images)

    @property
    def pixels(self) -> Tensor:
        """The images themselves, for their device and shape."""
        return self._images.pixels

    def batches(
        self, size: int, generator: torch.Generator, augmentation: Augmentation
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this process's share of one shuffled epoch.

        Raises
        ------
        ValueError
            The batch does not divide among the processes: their gradients would not weigh the same.
        """
        if size % self._world:
            raise ValueError(f"batch: expected a multiple of {self._world} processes, found {size}")
        for x, y in self._images.batches(size, generator, augmentation):
            yield x[self._rank :: self._world], y[self._rank :: self._world]


class AverageGradients:
    """A constraint that averages gradients over all processes before anything else looks at them: put it first.

    Making it sends rank 0's parameters and buffers to all. Batch norm would take its statistics from each
    process's share: use `nn.SyncBatchNorm`, or fold it.
    """

    def __init__(self, module: nn.Module) -> None:
        self._parameters = list(module.parameters())
        for tensor in [p.detach() for p in self._parameters] + list(module.buffers()):
            distributed.broadcast(tensor, src=0)

    def before_step(self, progress: float) -> None:
        """Average the gradients in one message."""
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        if not gradients:
            return
        flat = torch.cat([g.flatten() for g in gradients])
        distributed.all_reduce(flat)
        flat /= distributed.get_world_size()
        for gradient, part in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def after_step(self, progress: float) -> None:
        """Leave the weights as they are: all processes take the same step."""


@contextmanager
def process_group() -> Iterator[tuple[int, int, torch.device]]:
    """Join the group that `torchrun` set up, and leave it at the end; yields (rank, world, device).

    NCCL with a GPU for each process where there are enough, else gloo on the CPU. Without `torchrun` it is a
    group of one.
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
    plan: Plan,
    *,
    seed: int = 0,
    data: Path | str | None = None,
    progress: Progress | None = None,
) -> tuple[nn.Module, float]:
    """Train a dense network in all processes together; return it and its validation accuracy (0..1).

    Raises
    ------
    ValueError
        An unknown architecture, or a batch that does not divide among the processes.
    """
    with process_group() as (rank, world, device):
        images = training_data(data, device)
        module = build(architecture, seed).to(device)
        average = AverageGradients(module)
        shown = progress if rank == 0 else None
        fit(
            module,
            Shard(images.train, rank, world),  # type: ignore[arg-type]
            plan,
            seed=seed,
            constraints=(average,),
            stage="train",
            progress=shown,
        )
        return module, evaluate(module, images.validation)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train as the command line says; rank 0 saves."""
    parser = argparse.ArgumentParser(prog="dcformat_pruning.distributed", description=main.__doc__)
    parser.add_argument("architecture")
    parser.add_argument("out", type=Path, help="where to save the weights (.safetensors)")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path)
    options = parser.parse_args(arguments)
    plan = Plan(options.epochs, options.lr, options.batch)
    module, accuracy = train(options.architecture, plan, seed=options.seed, data=options.data)
    if int(os.environ.get("RANK", "0")) == 0:
        from safetensors.torch import save_file

        state = {name: tensor.cpu().contiguous() for name, tensor in module.state_dict().items()}
        save_file(state, options.out)
        print(f"validation accuracy {100 * accuracy:.2f} %")


if __name__ == "__main__":
    main()
