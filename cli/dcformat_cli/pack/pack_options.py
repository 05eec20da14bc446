"""The options of `dcformat pack`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dcformat.architectures import ARCHITECTURES, Architecture
from dcformat_cli.failures import misuse
from dcformat_cli.network_options import labels_file
from dcformat_cli.output_files import OutputFile

if TYPE_CHECKING:
    from dcformat.codecs import RelativeIndex
    from dcformat.modes import AnyMode


@dataclass(frozen=True, slots=True)
class PackOptions:
    """The options of the command line; their help texts explain them."""

    checkpoint: Path
    output: OutputFile
    base: str | None
    architecture: str | None
    mode: AnyMode
    seconds: float
    relative_index: RelativeIndex
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    labels: str | None
    metadata: Sequence[str]
    reorder_units: bool
    fold_scales: bool
    self_test: int | None
    skip: Sequence[str]
    key: str | None
    exact: bool
    float32: bool
    dims: Sequence[str]
    values: Sequence[str]
    max_memory: int | None
    as_json: bool
    jobs: int
    engine: str
    address: str | None
    shards: int | None

    @property
    def known(self) -> Architecture | None:
        """The named architecture."""
        return None if self.architecture is None else ARCHITECTURES[self.architecture]

    @property
    def need_architecture(self) -> bool:
        """Whether the user gave an option that concerns a network."""
        return any((self.mean, self.std, self.labels, self.reorder_units, self.fold_scales, self.self_test))

    @property
    def labels_file(self) -> str | None:
        """The file that ``--labels @FILE`` names."""
        return labels_file(self.labels)

    def pairs(self) -> dict[str, str]:
        """Return the metadata that the user gave; raise `click.UsageError` if it is not KEY=VALUE, each key once."""
        pairs: dict[str, str] = {}
        for item in self.metadata:
            key, equals, value = item.partition("=")
            if not key or not equals:
                raise misuse(f"--metadata: expected KEY=VALUE, found {item!r}")
            if key in pairs:
                raise misuse(f"--metadata: expected each key once, found {key!r} again")
            pairs[key] = value
        return pairs
