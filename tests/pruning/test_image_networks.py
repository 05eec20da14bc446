"""The networks of the study, the images that they are trained on, and the archive that holds the images."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from dcformat_pruning import training
from dcformat_pruning.criteria import scored_layers
from dcformat_pruning.data import FlipShift, Images
from dcformat_pruning.study import jpeg_archive
from dcformat_pruning.study.image_networks import IMAGE_NETWORKS, Attention, image_network
from dcformat_pruning.study.jpeg_archive import jpeg_test_images, jpeg_training_data, load_jpegs
from dcformat_pruning.study.network_training import plan_of
from torch.nn import functional

from dcformat.datasets import DataError

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
COUNTS = {
    "resnet-8": (77_360, 77_946),
    "resnet-20": (270_896, 272_474),
    "vgg-7": (795_360, 796_842),
    "mobilenet-v1": (210_160, 215_642),
    "vit": (300_480, 305_002),
}


@pytest.mark.parametrize("name", IMAGE_NETWORKS)
def test_networks_have_their_numbers_of_weights_and_parameters(name: str) -> None:
    module = image_network(name, 3, 32)
    weights = sum(layer.weight.numel() for layer in scored_layers(module).values())
    assert (weights, sum(p.numel() for p in module.parameters())) == COUNTS[name]
    assert module.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("name", IMAGE_NETWORKS)
def test_networks_take_grey_images_too_and_repeat_for_a_seed(name: str) -> None:
    module, again = image_network(name, 1, 28, seed=5), image_network(name, 1, 28, seed=5)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), again.parameters(), strict=True))
    assert module.eval()(torch.zeros(1, 1, 28, 28)).shape == (1, 10)


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(ValueError, match=r"network: expected one of resnet-8, .*, found 'resnet-9'"):
        image_network("resnet-9", 3, 32)


def test_flips_and_shifts_move_whole_images() -> None:
    images = torch.zeros(64, 1, 8, 8)
    images[:, 0, 4, 1:3] = torch.tensor([0.5, 1.0])
    moved = FlipShift(2)(images, torch.Generator().manual_seed(0))
    assert moved.shape == images.shape
    at = {(int(y), int(x)) for _, _, y, x in torch.nonzero(moved == 1.0)}
    assert {y for y, _ in at} == {2, 3, 4, 5, 6}
    assert {x for _, x in at} == {0, 1, 2, 3, 4, 5, 6, 7}  # 2 +- 2, and mirrored
    plain = FlipShift(2, flip=False)(images, torch.Generator().manual_seed(0))
    assert {int(x) for _, _, _, x in torch.nonzero(plain == 1.0)} == {0, 1, 2, 3, 4}
    assert torch.equal(FlipShift(0, flip=False)(images, torch.Generator()), images)


def test_digits_are_not_mirrored() -> None:
    grey, colour = (Images(torch.zeros(1, c, 8, 8, dtype=torch.uint8), torch.zeros(1)) for c in (1, 3))
    assert plan_of("resnet-8", grey).augmentation == FlipShift(2, flip=False)
    assert plan_of("resnet-8", colour).augmentation == FlipShift(4, flip=True)


def test_attention_is_that_of_pytorch() -> None:
    attention = Attention(width=24, heads=3).eval()
    tokens = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(0))
    parts = (attention.queries, attention.keys, attention.values)
    q, k, v = (part(tokens).view(2, 5, 3, 8).transpose(1, 2) for part in parts)
    mixed = functional.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(attention(tokens), attention.out(mixed.transpose(1, 2).flatten(2)))


def test_training_in_bfloat16_keeps_float32_weights() -> None:
    images = Images(torch.randint(0, 256, (32, 3, 8, 8), dtype=torch.uint8), torch.arange(32) % 10)
    module = image_network("resnet-8", 3, 8)
    training.fit(module, images, training.TrainingPlan(epochs=1, lr=0.01, batch=16, bfloat16=True), seed=0)
    assert all(p.dtype == torch.float32 and bool(torch.isfinite(p).all()) for p in module.parameters())


def jpeg(shade: int, size: int = 32) -> bytes:
    image = pytest.importorskip("PIL.Image").new("RGB", (size, size), (shade, shade, shade))
    out = io.BytesIO()
    image.save(out, "JPEG")
    return out.getvalue()


def archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:xz", preset=0) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def contents() -> dict[str, bytes]:
    """Three training images and a test image of each class, whose shade is 20 times the label."""
    files = {"README.md": b"not an image"}
    for part, count in (("test", 1), ("train", 3)):
        for label, name in reversed(list(enumerate(CLASSES))):
            files |= {f"{part}/{name}/{number:04d}.jpg": jpeg(20 * label) for number in range(count)}
    return files


@pytest.fixture(autouse=True)
def own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))


def test_an_archive_is_decoded_once_with_classes_in_alphabetical_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive(tmp_path / "cifar10_jpeg.tar.xz", contents())
    data = jpeg_training_data(tmp_path)
    assert (len(data.train), len(data.validation)) == (24, 6)
    assert data.train.pixels.shape == (24, 3, 32, 32) and data.train.pixels.dtype == torch.uint8
    for images in (data.train, data.validation):
        assert torch.equal(images.pixels[:, 1, 7, 9].long(), 20 * images.labels)
    monkeypatch.setattr(jpeg_archive, "decode", None)
    assert jpeg_test_images(tmp_path / "cifar10_jpeg.tar.xz").labels.tolist() == list(range(10))


def test_the_default_archive_is_in_the_user_data_directory(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"XDG_DATA_HOME/dcformat/cifar10_jpeg/cifar10_jpeg.tar.xz: expected an arch"):
        load_jpegs()
    folder = tmp_path / "XDG_DATA_HOME" / "dcformat" / "cifar10_jpeg"
    folder.mkdir(parents=True)
    archive(folder / "cifar10_jpeg.tar.xz", contents())
    assert load_jpegs()["train-images"].shape == (30, 3, 32, 32)


def test_a_damaged_cache_is_decoded_again(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar.xz", contents())
    first = load_jpegs(path)
    for file in (tmp_path / "XDG_CACHE_HOME").rglob("train-images.npy"):
        file.write_bytes(file.read_bytes()[:1000])
    assert np.array_equal(load_jpegs(path)["train-images"], first["train-images"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train/cat/9.jpg": b"GIF89a"}, r"train/cat/9.jpg: expected a JPEG image, found"),
        ({"train/cat/9.jpg": 31}, r"train/cat/9.jpg: expected 32 x 32 pixels, found 31 x 31"),
        ({"test/cow/9.jpg": 32}, r"expected the classes of train/ in test/, found also 'cow'"),
        ({"train/cow/9.jpg": 32}, r"expected 10 classes, found 11"),
        (
            {"train/cat/9.jpg": bytes(70_000)},
            r"9.jpg: expected at most 600,000 files of at most 65,536 bytes",
        ),
    ],
)
def test_a_wrong_file_in_the_archive_is_named(tmp_path: Path, change: dict[str, bytes | int], message: str) -> None:
    files = {name: jpeg(9, file) if isinstance(file, int) else file for name, file in change.items()}
    with pytest.raises(DataError, match=message):
        load_jpegs(archive(tmp_path / "a.tar.xz", contents() | files))


def test_a_truncated_or_missing_archive_is_refused(tmp_path: Path) -> None:
    whole = archive(tmp_path / "a.tar.xz", contents()).read_bytes()
    for bytes_left in (0, 40, len(whole) // 2, len(whole) - 30):
        (tmp_path / "a.tar.xz").write_bytes(whole[:bytes_left])
        with pytest.raises(DataError, match=r"a.tar.xz: expected "):
            load_jpegs(tmp_path / "a.tar.xz")
    with pytest.raises(DataError, match=r"b.tar.xz: expected an archive of JPEG files, found: No such file"):
        load_jpegs(tmp_path / "b.tar.xz")
    with pytest.raises(DataError, match=r"expected images in test/CLASS/, found none"):
        only = {name: file for name, file in contents().items() if not name.startswith("test")}
        load_jpegs(archive(tmp_path / "c.tar.xz", only))
