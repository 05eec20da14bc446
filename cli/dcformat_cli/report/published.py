"""Published sizes and errors of the networks that many papers compress, with everything that running them needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from dcformat.architectures import ARCHITECTURES

if TYPE_CHECKING:
    from dcformat import DcfFile


class Published(NamedTuple):
    """A published result: bytes of the network, and its error on MNIST's test images in percent."""

    method: str
    year: int
    citation: str
    bytes: int
    error: float


_HAN = "Han, Mao and Dally, arXiv:1510.00149"
_ULLRICH = "Ullrich, Meeds and Welling, arXiv:1702.04008"
_MOLCHANOV = "Molchanov, Ashukha and Vetrov, arXiv:1701.05369; size: Louizos et al., arXiv:1705.08665"
_OKTAY = "Oktay et al., arXiv:1906.06624"

#: The results by architecture, the largest first.
PUBLISHED: Mapping[str, tuple[Published, ...]] = {
    "lenet-300-100": (
        Published("Deep Compression", 2015, _HAN, 27_000, 1.58),
        Published("soft weight sharing", 2017, _ULLRICH, 16_700, 1.94),
        Published("sparse variational dropout", 2017, _MOLCHANOV, 9_400, 1.92),
        Published("entropy-penalised reparameterisation", 2020, _OKTAY, 8_560, 1.9),
    ),
    "lenet-5": (
        Published("Deep Compression", 2015, _HAN, 44_000, 0.74),
        Published("DeepCABAC", 2019, "Wiedemann et al., arXiv:1907.11900", 15_000, 0.8),
        Published("sparse variational dropout", 2017, _MOLCHANOV, 4_700, 1.0),
        Published("MIRACLE", 2019, "Havasi, Peharz and Hernández-Lobato, arXiv:1810.00440", 3_000, 0.69),
        Published("entropy-penalised reparameterisation", 2020, _OKTAY, 2_840, 1.0),
    ),
}

#: Titles of the architectures.
TITLES = {"lenet-300-100": "LeNet-300-100", "lenet-5": "LeNet-5"}


def architecture(file: DcfFile) -> str | None:
    """Return the published architecture that a file names, or None.

    A file names one if `dcformat compress` or ``pack --architecture`` made it: its network is that graph, with those
    tensors by name and shape.
    """
    if file.graph is None:
        return None
    shapes = {name: file.info(name).shape for name in file.names}
    for name in PUBLISHED:
        known = ARCHITECTURES[name]
        same = shapes == dict(known.shapes)
        if same and file.graph.nodes == known.build(list(known.shapes), None).nodes:
            return name
    return None
