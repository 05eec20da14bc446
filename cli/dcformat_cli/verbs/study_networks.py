"""`dcformat study networks`: compare pruning criteria on modern image networks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dcformat_cli.failures import require_pillow, require_torch
from dcformat_cli.group import Choice
from dcformat_cli.progress import reporting
from dcformat_cli.shared_options import FileName, as_json, numbers
from dcformat_cli.study_output import FORCE, OUT, RESUME, prepare, print_rows, write
from dcformat_cli.terminal import note

if TYPE_CHECKING:
    from dcformat_pruning.study.network_comparison import NetworkRow

#: The networks and criteria, for the help text, which must not need PyTorch.
NETWORKS = ("resnet-8", "resnet-20", "vgg-7", "mobilenet-v1", "vit")
CRITERIA = ("magnitude", "Wanda", "TF-IDF", "Taylor", "Fisher", "OBD", "OBS", "random")

_FILES = ("study-networks.csv", "study-networks.md", "study-networks.png")


def _densities(text: str) -> tuple[float, ...]:
    found = numbers(text)
    if not all(0 < density <= 1 for density in found):
        raise click.BadParameter(f"expected densities above 0 and at most 1, found {text!r}")
    return tuple(sorted(set(found), reverse=True))


@click.command("networks", short_help="compare pruning criteria on modern networks")
@click.option(
    "--network", "networks", type=Choice(NETWORKS), multiple=True, default=("resnet-8", "vgg-7"),
    help="Prune this network; may be repeated [default: resnet-8 and vgg-7].",
)  # fmt: skip
@click.option(
    "--criterion", "criteria", type=Choice(CRITERIA), multiple=True,
    default=tuple(name for name in CRITERIA if name != "OBS"),
    help="Compare this criterion; may be repeated [default: all except OBS].",
)  # fmt: skip
@click.option(
    "--density", "densities", type=_densities, default="0.5,0.3,0.2,0.1,0.05", show_default=True, metavar="D,...",
    help="Shares of the weights to keep.",
)  # fmt: skip
@click.option("--seeds", type=click.IntRange(1, 100), default=3, show_default=True, help="Number of seeds.")
@click.option(
    "--dense", type=click.IntRange(min=1), default=20, show_default=True, help="Epochs of each dense network."
)
@click.option(
    "--epochs", type=click.IntRange(min=0), default=1, show_default=True, help="Epochs of retraining; 0 for none."
)
@OUT
@FORCE
@RESUME
@click.option(
    "--data", type=FileName(path_type=Path), metavar="PATH",
    help="The archive of CIFAR-10 (JPEG), a directory that holds it as cifar10_jpeg.tar.xz, or a directory of IDX "
    "files [default: cifar10_jpeg in your data directory of dcformat].",
)  # fmt: skip
@as_json()
def networks_command(
    out: Path | None, force: bool, resume: Path | None, data: Path | None, as_json: bool, **compared: Any
) -> None:
    """Train modern image networks, prune them by several criteria to several densities, and retrain them.

    Weights are selected by one ranking over all layers, and so that every row of every layer keeps the same share, as
    Wanda was published. Accuracies are on images held out of the training set.

    The defaults take about six hours on two cores. An interrupted study continues with --resume.
    """
    require_torch("study")
    from dcformat_pruning.meter import Meter
    from dcformat_pruning.study.criteria_report import to_csv
    from dcformat_pruning.study.jpeg_archive import is_archive
    from dcformat_pruning.study.network_report import networks_markdown, plot_networks
    from dcformat_pruning.study.network_runs import NetworkStudy, image_data, run

    compared["criteria"] = tuple(name for name in CRITERIA if name in compared["criteria"])
    study = NetworkStudy(**compared)
    if is_archive(data):
        require_pillow("the archive of images")
    images = image_data(data)
    prepare(out, force, _FILES, resume)
    rows: list[NetworkRow] = []
    with reporting() as report:
        for rows in run(study, images, resume, Meter(report, study.work())):
            if out is not None:
                write(out, {"study-networks.csv": to_csv(rows), "study-networks.md": networks_markdown(rows)})
    if out is not None:
        try:
            plot_networks(rows, out / "study-networks.png")
        except ImportError as error:
            note(f"no plot: matplotlib is not installed ({error})")
    print_rows(rows, networks_markdown(rows), as_json)
