"""The training loop: an optimiser, a learning-rate schedule, constraints on the weights, and a progress callback.

All random numbers come from one generator that the caller seeds, so that a run repeats bit for bit on the CPU with the
same number of threads. Constraints (masks, shared weights, gradual pruning) change the gradients before a step and the
weights after it. They never replace a parameter, so a caller's own optimiser keeps working.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from dcformat_pruning.data import Augment, Augmentation, Images
from dcformat_pruning.feeds import Batch, Feed
from dcformat_pruning.objectives import Classification, Task, taught_loss

#: Called after each batch with the stage, the epochs done (whole at the end of an epoch), the number of epochs, and
#: figures of the last whole epoch, such as the loss.
EpochProgress = Callable[[str, float, int, dict[str, float]], None]


class DivergenceError(RuntimeError):
    """A loss, gradient or weight is not finite; the message names the stage and the layer."""


class Constraint(Protocol):
    """Keeps weights pruned or shared while they train, or prunes or shares them step by step."""

    def before_step(self, progress: float) -> None:
        """Change the gradients before the optimiser's step; `progress` rises from 0 to 1 over the whole training."""

    def after_step(self, progress: float) -> None:
        """Change the weights after the optimiser's step."""


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """The plan by which a stage trains.

    Attributes
    ----------
    epochs : int
        Number of passes over the images.
    lr : float
        Peak learning rate.
    batch : int
        Number of images in a batch.
    optimizer : {'adam', 'sgd'}
        AdamW, or SGD with Nesterov momentum 0.9.
    weight_decay : float
        Decoupled from the gradient for Adam, added to it for SGD; biases do not decay.
    l1 : float
        Factor of the sum of absolute weights (not biases) in the loss.
    warmup : float
        Share of the steps over which the learning rate rises linearly to its peak.
    final : float
        The last learning rate as a share of the peak; the rate falls to it along a cosine.
    distill : float
        Share of the teacher's targets in the loss, 0 to 1; needs a teacher.
    temperature : float
        Softens the probabilities of the teacher and the student (Hinton et al. 2015, section 2).
    smoothing : float
        Label smoothing.
    ema : float
        Decay per step of an exponential moving average of the weights, which replaces them at the end; 0 for none.
    augmentation : callable
        Random changes of the images: `Augmentation` or `FlipShift`.
    bfloat16 : bool
        Compute in bfloat16 on a CPU too, which is faster for convolutions if the processor has instructions for it. On
        CUDA this is always so.
    """

    epochs: int
    lr: float
    batch: int = 256
    optimizer: str = "adam"
    weight_decay: float = 0.0
    l1: float = 0.0
    warmup: float = 0.05
    final: float = 0.0
    distill: float = 0.0
    temperature: float = 2.0
    smoothing: float = 0.0
    ema: float = 0.0
    augmentation: Augment = field(default_factory=Augmentation)
    bfloat16: bool = False


def fit(
    module: nn.Module,
    data: Feed,
    plan: TrainingPlan,
    *,
    seed: int,
    constraints: Sequence[Constraint] = (),
    teacher: nn.Module | None = None,
    task: Task | None = None,
    stage: str = "train",
    progress: EpochProgress | None = None,
) -> None:
    """Train `module` in place.

    Parameters
    ----------
    module : nn.Module
        For the default task, takes float32 ``(n, 1, height, width)`` and returns logits ``(n, classes)``.
    data : Feed
        The training data on the module's device, such as `Images`, a `Pool`, or a feed made by `feed_of`.
    plan : TrainingPlan
    seed : int
        Seeds the order of the samples and their augmentation.
    constraints : sequence of Constraint
        Applied in this order before and after each step.
    teacher : nn.Module, optional
        Gives soft targets when ``plan.distill`` is positive; it must be in eval mode.
    task : Task, optional
        The purpose for which the network is trained; by default, to classify images.
    stage : str
        Name of the stage, for `progress` and for errors.
    progress : callable, optional
        See `EpochProgress`.

    Raises
    ------
    DivergenceError
        The loss, a gradient or a weight became NaN or infinite.
    ValueError
        The plan's optimiser is unknown.
    """
    generator = torch.Generator().manual_seed(seed)
    layout = memory_format(module)
    module.to(memory_format=layout)  # type: ignore[call-overload]
    batches = data.steps(plan.batch)
    device = next(module.parameters()).device
    loss = partial(objective, module, plan=plan, teacher=teacher, task=task)
    steps = _Steps(module, plan, plan.epochs * batches, constraints, loss)
    figures: dict[str, float] = {}
    module.train()
    for epoch in range(plan.epochs):
        total, done = torch.zeros((), device=device), 0
        for batch in data.batches(plan.batch, generator, plan.augmentation):
            total += steps.take(_laid_out(batch, layout))
            done += 1
            if progress is not None and done < batches:
                progress(stage, epoch + done / batches, plan.epochs, figures)
        figures = {"loss": float(total) / max(1, done)}
        check_finite(module, figures["loss"], f"{stage}, epoch {epoch + 1}")
        if progress is not None:
            progress(stage, epoch + 1, plan.epochs, figures)
    steps.average.store()
    module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    module.eval()


class _Steps:
    """The steps of a training: learning rate, loss, gradients, constraints, optimiser and moving average."""

    def __init__(
        self,
        module: nn.Module,
        plan: TrainingPlan,
        total: int,
        constraints: Sequence[Constraint],
        loss: Callable[[Batch], Tensor],
    ) -> None:
        self._plan, self._loss = plan, loss
        self._constraints, self._total, self._taken = constraints, total, 0
        self._optimizer = make_optimizer(module, plan)
        self._scaler = _Scaler(next(module.parameters()).device, plan.bfloat16)
        self.average = _Average(module, plan.ema)

    def take(self, batch: Batch) -> Tensor:
        """Take one step on a batch; return its loss, detached."""
        plan, optimizer = self._plan, self._optimizer
        for group in optimizer.param_groups:
            group["lr"] = plan.lr * _warmup_cosine(self._taken / self._total, plan.warmup, plan.final)
        optimizer.zero_grad(set_to_none=True)
        with self._scaler.autocast():
            loss = self._loss(batch)
        self._scaler.backward(loss, optimizer)
        self._taken += 1
        progress = self._taken / self._total
        for constraint in self._constraints:
            constraint.before_step(progress)
        self._scaler.step(optimizer)
        for constraint in self._constraints:
            constraint.after_step(progress)
        self.average.update()
        return loss.detach()


def _laid_out(batch: Batch, layout: torch.memory_format) -> Batch:
    """Return a batch with its images (tensors of rank 4) in a memory layout."""
    return pytree.tree_map(
        lambda leaf: leaf.contiguous(memory_format=layout) if isinstance(leaf, Tensor) and leaf.ndim == 4 else leaf,
        batch,
    )


def memory_format(module: nn.Module) -> torch.memory_format:
    """Return the fastest memory layout for images and weights: convolutions train faster with channels last."""
    convolutional = any(isinstance(child, nn.Conv2d) for child in module.modules())
    return torch.channels_last if convolutional else torch.contiguous_format


def make_optimizer(module: nn.Module, plan: TrainingPlan) -> torch.optim.Optimizer:
    """Return the plan's optimiser for the trainable parameters of the module; biases do not decay.

    Raises
    ------
    ValueError
        The optimiser is unknown.
    """
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for _, p in named if p.ndim > 1], "weight_decay": plan.weight_decay},
        {"params": [p for _, p in named if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if plan.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=plan.lr, momentum=0.9, nesterov=True)
    if plan.optimizer == "adam":
        return torch.optim.AdamW(groups, lr=plan.lr, fused=True)
    raise ValueError(f"optimizer: expected 'adam' or 'sgd', found {plan.optimizer!r}")


def objective(
    module: nn.Module, batch: Batch, plan: TrainingPlan, teacher: nn.Module | None = None, task: Task | None = None
) -> Tensor:
    """Return the loss of a batch: the task's, mixed with the distance to the teacher and the L1 penalty of the plan.

    Parameters
    ----------
    batch : pair of Tensor, or what the task takes
        For the default task: float32 images ``(n, channels, height, width)``, and int64 labels ``(n,)`` or float32
        probabilities ``(n, classes)``.
    task : Task, optional
        By default, `Classification` with the plan's label smoothing.

    Returns
    -------
    Tensor
        A scalar.
    """
    task = task or Classification(plan.smoothing)
    if plan.distill and teacher is not None:
        loss = taught_loss(module, batch, task, teacher, plan.distill, plan.temperature)
    else:
        loss = task.loss(module, batch)
    if plan.l1:
        loss = loss + plan.l1 * sum(p.abs().sum() for p in module.parameters() if p.ndim > 1)
    return loss


@torch.no_grad()
def evaluate(module: nn.Module, images: Images, batch: int = 1000) -> float:
    """Return the accuracy of `module` in eval mode, 0 to 1.

    `objectives.score` does the same for batches of a user's own; these images are made floats batch by batch.
    """
    training = module.training
    module.eval()
    right = 0
    for start in range(0, len(images), batch):
        chosen = slice(start, start + batch)
        right += int((module(images.floats(chosen)).argmax(1) == images.labels[chosen]).sum())
    module.train(training)
    return right / len(images)


def check_finite(module: nn.Module, loss: float, where: str) -> None:
    """Raise a `DivergenceError` that names the layer if the loss, a gradient or a weight is not finite."""
    for name, parameter in module.named_parameters():
        for kind, tensor in (("gradients", parameter.grad), ("values", parameter.detach())):
            if tensor is not None and not bool(torch.isfinite(tensor).all()):
                raise DivergenceError(
                    f"{where}: {name}: expected finite {kind}, found NaN or infinity; lower the learning rate"
                )
    if not math.isfinite(loss):
        raise DivergenceError(f"{where}: expected a finite loss, found {loss}; lower the learning rate")


def resolve_device(device: str) -> torch.device:
    """Return the device named ``auto``, ``cpu`` or ``cuda``.

    Raises
    ------
    ValueError
        The name is none of these, or it is ``cuda`` on a machine without CUDA.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device: expected auto, cpu or cuda, found {device!r}")
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ValueError("device: expected a CUDA device for 'cuda', found none")
    return torch.device("cuda" if available and device != "cpu" else "cpu")


def _warmup_cosine(progress: float, warmup: float, final: float) -> float:
    if progress < warmup:
        return progress / warmup
    phase = (progress - warmup) / (1 - warmup) if warmup < 1 else 1.0
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * phase))


class _Average:
    """An exponential moving average of the parameters, which does nothing when its decay is 0."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        self._parameters = [p.detach() for p in module.parameters()] if decay else []
        self._mean = [p.clone() for p in self._parameters]

    def update(self) -> None:
        if self._decay:
            torch._foreach_lerp_(self._mean, self._parameters, 1 - self._decay)

    def store(self) -> None:
        for parameter, mean in zip(self._parameters, self._mean, strict=True):
            parameter.copy_(mean)


class _Scaler:
    """Mixed precision on CUDA: bfloat16 if the device supports it, otherwise float16 with loss scaling."""

    def __init__(self, device: torch.device, bfloat16: bool) -> None:
        cuda = device.type == "cuda"
        self._enabled = cuda or bfloat16
        half = cuda and not torch.cuda.is_bf16_supported()
        self._dtype = torch.float16 if half else torch.bfloat16
        self._scaler = torch.amp.GradScaler("cuda", enabled=half)
        self._device = device.type

    def autocast(self) -> torch.autocast:
        return torch.autocast(self._device, dtype=self._dtype, enabled=self._enabled)

    def backward(self, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        torch.autograd.backward(self._scaler.scale(loss))
        self._scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        self._scaler.step(optimizer)
        self._scaler.update()
