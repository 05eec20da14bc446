"""The training loop: one optimiser, one schedule, constraints on the weights, a progress callback.

Everything random comes from one generator seeded by the caller, so a run repeats bit for bit on the CPU
with the same number of threads. Constraints (masks, shared weights, gradual pruning) act on the gradients
before a step and on the weights after it; they never replace a parameter, so a caller's own optimiser keeps
working.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from dcformat_pruning.data import Augmentation, Images, Pool

#: Called after each batch with (stage, epochs done, epochs in all, figures of the last whole epoch such as the loss);
#: the number of epochs done is whole at the end of an epoch.
Progress = Callable[[str, float, int, dict[str, float]], None]


class DivergenceError(RuntimeError):
    """A loss or gradient that is not finite; the message names the stage or the layer."""


class Constraint(Protocol):
    """What keeps weights pruned, shared or on their way there."""

    def before_step(self, progress: float) -> None:
        """Change gradients before the optimiser's step; `progress` goes from 0 to 1 over the whole fit."""

    def after_step(self, progress: float) -> None:
        """Change weights after the optimiser's step."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to train for one stage.

    Attributes
    ----------
    epochs : int
    lr : float
        Peak learning rate; reached after `warmup` of all steps, then a cosine down to ``lr * final``.
    batch : int
    optimizer : {'adam', 'sgd'}
        SGD with Nesterov momentum 0.9.
    weight_decay : float
        Decoupled from the gradient for Adam, as usual for SGD.
    l1 : float
        Weight of the sum of absolute weights in the loss (biases excepted).
    distill : float
        Share of the teacher's part in the loss, 0..1; needs a teacher.
    temperature : float
        Softens the teacher's and the student's probabilities (Hinton 2015).
    smoothing : float
        Label smoothing.
    ema : float
        Decay a step of an exponential average of the weights that replaces them at the end; 0 for none.
    augmentation : Augmentation
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
    augmentation: Augmentation = field(default_factory=Augmentation)


def fit(
    module: nn.Module,
    images: Images | Pool,
    plan: Plan,
    *,
    seed: int,
    constraints: Sequence[Constraint] = (),
    teacher: nn.Module | None = None,
    stage: str = "train",
    progress: Progress | None = None,
) -> None:
    """Train `module` in place.

    Parameters
    ----------
    module : nn.Module
        Takes float32 ``(n, 1, height, width)`` and returns logits.
    images : Images or Pool
        The training images, on the module's device.
    seed : int
        Seeds the order of the images and the augmentation.
    constraints : sequence of Constraint
        Applied in order before each step and after it.
    teacher : nn.Module, optional
        Gives the soft targets when ``plan.distill`` is positive.

    Raises
    ------
    DivergenceError
        The loss or a gradient became NaN or infinite.
    """
    generator = torch.Generator().manual_seed(seed)
    layout = memory_format(module)
    module.to(memory_format=layout)  # type: ignore[call-overload]
    optimizer = make_optimizer(module, plan)
    in_epoch = max(1, len(images) // plan.batch)
    steps = plan.epochs * in_epoch
    figures: dict[str, float] = {}
    average = _Average(module, plan.ema)
    scaler = _Scaler(images.pixels.device)
    step = 0
    module.train()
    for epoch in range(plan.epochs):
        total, batches = torch.zeros((), device=images.pixels.device), 0
        for x, y in images.batches(min(plan.batch, len(images)), generator, plan.augmentation):
            for group in optimizer.param_groups:
                group["lr"] = plan.lr * _warmup_cosine(step / steps, plan.warmup, plan.final)
            optimizer.zero_grad(set_to_none=True)
            with scaler.autocast():
                loss = objective(module, x.contiguous(memory_format=layout), y, plan, teacher)
            scaler.backward(loss, optimizer)
            step += 1
            for constraint in constraints:
                constraint.before_step(step / steps)
            scaler.step(optimizer)
            for constraint in constraints:
                constraint.after_step(step / steps)
            average.update()
            total += loss.detach()
            batches += 1
            if progress is not None and batches < in_epoch:
                progress(stage, epoch + batches / in_epoch, plan.epochs, figures)
        figures = {"loss": float(total) / max(1, batches)}
        check_finite(module, figures["loss"], f"{stage}, epoch {epoch + 1}")
        if progress is not None:
            progress(stage, epoch + 1, plan.epochs, figures)
    average.store()
    module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    module.eval()


def memory_format(module: nn.Module) -> torch.memory_format:
    """Return how images and weights should lie in memory: convolutions run 1.5 to 3 times as fast channels last."""
    convolutional = any(isinstance(child, nn.Conv2d) for child in module.modules())
    return torch.channels_last if convolutional else torch.contiguous_format


def make_optimizer(module: nn.Module, plan: Plan) -> torch.optim.Optimizer:
    """Return the plan's optimiser over the module's trainable parameters; weight decay spares the biases."""
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


def objective(module: nn.Module, x: Tensor, y: Tensor, plan: Plan, teacher: nn.Module | None) -> Tensor:
    """Return one batch's loss: cross-entropy, mixed with the teacher's and the L1 penalty as planned.

    Parameters
    ----------
    y : Tensor
        int64 labels ``(n,)``, or float32 probabilities ``(n, classes)``.
    """
    logits = module(x)
    loss = functional.cross_entropy(logits, y, label_smoothing=plan.smoothing)
    if plan.distill and teacher is not None:
        with torch.no_grad():
            target = functional.softmax(teacher(x) / plan.temperature, dim=1)
        soft = functional.cross_entropy(logits / plan.temperature, target) * plan.temperature**2
        loss = (1 - plan.distill) * loss + plan.distill * soft
    if plan.l1:
        loss = loss + plan.l1 * sum(p.abs().sum() for p in module.parameters() if p.ndim > 1)
    return loss


@torch.no_grad()
def evaluate(module: nn.Module, images: Images, batch: int = 1000) -> float:
    """Return the accuracy in 0..1 of `module`, in eval mode."""
    training = module.training
    module.eval()
    right = 0
    for start in range(0, len(images), batch):
        chosen = slice(start, start + batch)
        right += int((module(images.floats(chosen)).argmax(1) == images.labels[chosen]).sum())
    module.train(training)
    return right / len(images)


def check_finite(module: nn.Module, loss: float, where: str) -> None:
    """Raise `DivergenceError` if the loss, a gradient or a weight is not finite, naming the layer."""
    for name, parameter in module.named_parameters():
        for kind, tensor in (("gradients", parameter.grad), ("values", parameter.detach())):
            if tensor is not None and not bool(torch.isfinite(tensor).all()):
                raise DivergenceError(
                    f"{where}: {name}: expected finite {kind}, found NaN or infinity; lower the learning rate"
                )
    if not math.isfinite(loss):
        raise DivergenceError(f"{where}: expected a finite loss, found {loss}; lower the learning rate")


def resolve_device(device: str) -> torch.device:
    """Return the device for ``auto``, ``cpu`` or ``cuda``.

    Raises
    ------
    ValueError
        Another name, or ``cuda`` on a machine without it.
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
    """An exponential moving average of the parameters; does nothing with decay 0."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        self._live = [p.detach() for p in module.parameters()] if decay else []
        self._mean = [p.clone() for p in self._live]

    def update(self) -> None:
        if self._decay:
            torch._foreach_lerp_(self._mean, self._live, 1 - self._decay)

    def store(self) -> None:
        for live, mean in zip(self._live, self._mean, strict=True):
            live.copy_(mean)


class _Scaler:
    """Mixed precision on CUDA: bfloat16 where the device has it, else float16 with loss scaling."""

    def __init__(self, device: torch.device) -> None:
        self._enabled = device.type == "cuda"
        half = self._enabled and not torch.cuda.is_bf16_supported()
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


def frozen_copy(module: nn.Module) -> nn.Module:
    """Return a copy in eval mode whose parameters take no gradient: a teacher."""
    teacher = copy.deepcopy(module).eval()
    return teacher.requires_grad_(False)
