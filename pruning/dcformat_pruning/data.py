"""Images on the device: a fixed split into training and validation images, batches by index, and augmentation.

Pixels are floats in [0, 1], from which no mean is subtracted. Black is exactly zero, so that a pixel that is always
black carries no signal, and criteria that look at a layer's inputs (TF-IDF, Wanda) see that it is silent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from dcformat.datasets import DataError, Split, load_split
from dcformat.graph import Preprocessing

#: The preprocessing of pixels, which only divides by 255.
PREPROCESSING = Preprocessing(mean=(0.0,), std=(1.0,))

#: Number of training images that are held out for all choices; no choice uses the test images.
VALIDATION_IMAGES = 5000

#: Numbers of images to augment, or show to a teacher, at once: few enough for the processor's cache.
_CHUNK = 1000
_TAUGHT_AT_A_TIME = 250

#: The split is the same for all seeds, so that results of different seeds can be compared.
_SPLIT_SEED = 20151001


#: Changes images at random: takes float32 ``(n, channels, height, width)`` and a generator on the CPU.
Augment = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Random affine changes of each image; by default, none.

    Attributes
    ----------
    shift : float
        Largest shift along each axis, in pixels.
    rotate : float
        Largest rotation, in degrees.
    scale : float
        Largest relative change of size.
    shear : float
        Largest shear factor.
    """

    shift: float = 0.0
    rotate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0

    @property
    def is_identity(self) -> bool:
        """Whether images do not change."""
        return not (self.shift or self.rotate or self.scale or self.shear)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return changed copies of images, with bilinear interpolation, and with black outside the image.

        Parameters
        ----------
        images : Tensor
            float32 ``(n, 1, height, width)``.
        generator : torch.Generator
            On the CPU.
        """
        if self.is_identity:
            return images
        n, _, height, width = images.shape
        u = torch.rand((5, n), generator=generator) * 2 - 1
        angle = u[0] * math.radians(self.rotate)
        size = 1 + u[1] * self.scale
        cos, sin = torch.cos(angle) / size, torch.sin(angle) / size
        shear = u[2] * self.shear
        theta = torch.stack(
            (
                torch.stack((cos, shear * cos - sin, u[3] * (2 * self.shift / width)), 1),
                torch.stack((sin, shear * sin + cos, u[4] * (2 * self.shift / height)), 1),
            ),
            1,
        ).to(images.device)
        grid = functional.affine_grid(theta, [n, 1, height, width], align_corners=False)
        return functional.grid_sample(images, grid, align_corners=False)


@dataclass(frozen=True, slots=True)
class FlipShift:
    """Mirrors half of the images, and shifts each of them, with black outside the image.

    Attributes
    ----------
    shift : int
        Largest shift along each axis, in pixels.
    flip : bool
        Whether to mirror images; digits and letters must not be.
    """

    shift: int = 4
    flip: bool = True

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return changed copies of images; parameters are those of `Augmentation`."""
        n, _, height, width = images.shape
        padded = functional.pad(images, (self.shift,) * 4)
        top, left = torch.randint(2 * self.shift + 1, (2, n, 1), generator=generator)
        rows, columns = top + torch.arange(height), torch.arange(width).repeat(n, 1)
        if self.flip:
            mirrored = torch.rand((n, 1), generator=generator) < 0.5
            columns = torch.where(mirrored, columns.flip(1), columns)
        rows, columns = rows.to(images.device), (columns + left).to(images.device)
        chosen = padded[torch.arange(n, device=images.device)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
        return chosen.permute(0, 3, 1, 2)


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """Images and their labels, on one device.

    Attributes
    ----------
    pixels : Tensor
        uint8 ``(n, channels, height, width)``.
    labels : Tensor
        int64 ``(n,)``.
    """

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def floats(self, index: Tensor | slice) -> Tensor:
        """Return the chosen images as float32 in [0, 1], by true division as in the runtime."""
        return self.pixels[index].to(torch.float32) / 255

    def steps(self, size: int) -> int:
        """Return the number of batches of an epoch."""
        return max(1, len(self) // size)

    def batches(self, size: int, generator: torch.Generator, augmentation: Augment) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield one shuffled epoch as (float32 images, int64 labels); a smaller last batch is left out."""
        size = min(size, len(self))
        order = torch.randperm(len(self), generator=generator).to(self.labels.device)
        for start in range(0, len(self) - size + 1, size):
            index = order[start : start + size]
            yield augmentation(self.floats(index), generator), self.labels[index]


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Several augmented copies of the same images, made once.

    Augmenting every batch separately would take longer than training a small network. An epoch takes one copy of each
    image at random. The first copy is the image without augmentation.

    Attributes
    ----------
    images : Images
        The images without augmentation.
    copies : Tensor
        uint8 ``(copies, n, 1, height, width)``.
    targets : Tensor or None
        float16 ``(copies, n, classes)``, probabilities that replace the labels in batches; made with a teacher.
    """

    images: Images
    copies: Tensor
    targets: Tensor | None = None

    @classmethod
    def make(
        cls,
        images: Images,
        augmentation: Augmentation,
        copies: int,
        seed: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> Pool:
        """Augment all images ``copies - 1`` times; `progress` takes the number of images done and their total."""
        generator = torch.Generator().manual_seed(seed)
        pixels = torch.empty((copies, *images.pixels.shape), dtype=torch.uint8, device=images.pixels.device)
        pixels[0] = images.pixels
        for copy in range(1, copies):
            for start in range(0, len(images), _CHUNK):
                chosen = slice(start, start + _CHUNK)
                pixels[copy, chosen] = (augmentation(images.floats(chosen), generator) * 255).round()
                if progress is not None:
                    progress(copy * len(images) + min(start + _CHUNK, len(images)), copies * len(images))
        return cls(images, pixels)

    @torch.no_grad()
    def taught(
        self, teacher: nn.Module, share: float = 0.7, progress: Callable[[int, int], None] | None = None
    ) -> Pool:
        """Return the pool with targets: `share` of the teacher's probabilities, and the rest for the true label.

        This is distillation (Hinton et al. 2015, section 2) at temperature 1, where the two losses together are one
        cross-entropy.
        """
        teacher.eval()
        flat = self.copies.flatten(0, 1)
        logits = torch.empty((0, 0))
        for start in range(0, len(flat), _TAUGHT_AT_A_TIME):
            x = flat[start : start + _TAUGHT_AT_A_TIME].float() / 255
            found = teacher(x.contiguous(memory_format=torch.channels_last))
            if not start:  # A single tensor: thousands of small ones would keep the heap from shrinking.
                logits = found.new_empty((len(flat), found.shape[1]))
            logits[start : start + _TAUGHT_AT_A_TIME] = found
            if progress is not None:
                progress(min(start + _TAUGHT_AT_A_TIME, len(flat)), len(flat))
        targets = share * torch.softmax(logits, 1)
        targets.view(len(self.copies), len(self), -1)[:, torch.arange(len(self)), self.images.labels] += 1 - share
        return Pool(self.images, self.copies, targets.half().view(*self.copies.shape[:2], -1))

    def __len__(self) -> int:
        return len(self.images)

    def steps(self, size: int) -> int:
        """Return the number of batches of an epoch."""
        return self.images.steps(size)

    def batches(self, size: int, generator: torch.Generator, augmentation: Augment) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield one shuffled epoch of random copies as (float32 images, int64 labels or float32 targets)."""
        n = len(self)
        size = min(size, n)
        order = torch.randperm(n, generator=generator)
        chosen = order + n * torch.randint(len(self.copies), (n,), generator=generator)
        device = self.copies.device
        order, chosen = order.to(device), chosen.to(device)
        pixels = self.copies.flatten(0, 1)
        targets = None if self.targets is None else self.targets.flatten(0, 1)
        for start in range(0, n - size + 1, size):
            part = chosen[start : start + size]
            x = augmentation(pixels[part].float() / 255, generator)
            labels = self.images.labels[order[start : start + size]]
            yield x, labels if targets is None else targets[part].float()


@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """The images that training may use: the train part of a data set, split in the same way for all seeds."""

    train: Images
    validation: Images


def training_data(data: Path | str | None = None, device: torch.device | None = None) -> TrainingData:
    """Load the train part of a data set (see `dcformat.datasets.load_split`) to `device`, split in two.

    Raises
    ------
    DataError
        The directory cannot be read, or the images are not 28 x 28 in at most ten classes.
    """
    split = load_split("train", data)
    _check(split)
    order = split_order(len(split.labels))
    held_out = min(VALIDATION_IMAGES, len(order) // 5)
    device = device or torch.device("cpu")
    return TrainingData(
        train=_images(split, order[held_out:], device), validation=_images(split, order[:held_out], device)
    )


def load_test_images(data: Path | str | None = None) -> Images:
    """Load the test images on the CPU, for the rows of the study that repeat published figures.

    Raises
    ------
    DataError
        See `training_data`.
    """
    split = load_split("test", data)
    _check(split)
    return _images(split, np.arange(len(split.labels)), torch.device("cpu"))


def split_order(images: int) -> npt.NDArray[np.int64]:
    """Return the order in which training images are split: those held out for validation come first."""
    return np.random.default_rng(_SPLIT_SEED).permutation(images)


def _check(split: Split) -> None:
    if split.images.shape[1:] != (28, 28):
        raise DataError(f"training images: expected 28 x 28 pixels, found {split.images.shape[1:]}")
    if split.classes > 10:
        raise DataError(f"training labels: expected at most 10 classes, found {split.classes}")


def _images(split: Split, index: npt.NDArray[np.int64], device: torch.device) -> Images:
    pixels = torch.from_numpy(split.images[index][:, None]).to(device)
    return Images(pixels, torch.from_numpy(split.labels[index].astype(np.int64)).to(device))
