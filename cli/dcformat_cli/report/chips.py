"""Decides whether a network fits on microcontrollers: the needs of its program, and the memory of a dozen chips."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dcformat.errors import FormatError
from dcformat.graph import Conv, Linear

if TYPE_CHECKING:
    from dcformat import DcfFile, Tensor


class Chip(NamedTuple):
    """A microcontroller: KiB of flash and of RAM, its processor, and the document that says so."""

    flash: int
    ram: int
    processor: str
    source: str


#: Chips by name.
CHIPS = {
    "STM32L011F4": Chip(16, 2, "cortex-m0", "STMicroelectronics, STM32L011x3/x4 datasheet"),
    "STM32F030F4": Chip(16, 4, "cortex-m0", "STMicroelectronics, STM32F030x4/x6/x8/xC datasheet"),
    "PY32F002A": Chip(20, 3, "cortex-m0", "Puya Semiconductor, PY32F002A datasheet"),
    "ATmega328P": Chip(32, 2, "atmega328p", "Microchip, ATmega48A/PA/88A/PA/168A/PA/328/P datasheet"),
    "SAMD21E15": Chip(32, 4, "cortex-m0", "Microchip, SAM D21/DA1 family datasheet"),
    "STM32G030F6": Chip(32, 8, "cortex-m0", "STMicroelectronics, STM32G030x6/x8 datasheet"),
    "STM32L151C6": Chip(32, 10, "cortex-m3", "STMicroelectronics, STM32L151x6/8/B datasheet"),
    "STM32F103C8": Chip(64, 20, "cortex-m3", "STMicroelectronics, STM32F103x8/xB datasheet"),
    "nRF51822": Chip(128, 16, "cortex-m0", "Nordic Semiconductor, nRF51822 product specification"),
    "ATmega1284P": Chip(128, 16, "atmega1284p", "Microchip, ATmega164A/PA/324A/PA/644A/PA/1284/P datasheet"),
    "STM32F401CC": Chip(256, 64, "cortex-m4", "STMicroelectronics, STM32F401xB/xC datasheet"),
    "RP2040": Chip(2048, 264, "cortex-m0", "Raspberry Pi, RP2040 and Pico datasheets (flash of the Pico)"),
}

#: Bytes that the rest of a program takes.
OTHER_FLASH, OTHER_RAM = 1024, 256

#: Bytes of flash beside the coded weights on a Cortex-M: for any program, and for each layer with weights; and how many
#: times as many on an AVR. These and the next figures are above those that `benchmarks/microcontrollers/programs.py`
#: measured.
CODE, CODE_PER_LAYER, AVR_FACTOR = 1300, 275, 2

#: Bytes of memory beside the values: for any program, for each layer, and for each entry of the fullest row of a
#: convolution.
STACK, RAM_PER_LAYER, RAM_PER_ENTRY = 300, 80, 8

#: Steps of an export that is worth waiting for (some seconds), and bytes of the largest file that may fit a chip.
_MAX_WORK, _MAX_BYTES = 1 << 29, 2 << 20


class ProgramEstimate(NamedTuple):
    """The estimated needs of a network's program in 8 bits.

    Attributes
    ----------
    weights : int
        Bytes of the coded weights.
    layers : int
        Number of layers with weights.
    memory : int
        Bytes of memory for values, working arrays and the stack.
    """

    weights: int
    layers: int
    memory: int

    def flash(self, processor: str) -> int:
        """Return the bytes of flash on a processor."""
        factor = AVR_FACTOR if processor.startswith("atmega") else 1
        return self.weights + factor * (CODE + CODE_PER_LAYER * self.layers)

    def lacks(self, chip: Chip) -> list[str]:
        """Return the resource of which a chip has too little for the program and the rest: flash, RAM, or nothing."""
        flash = self.flash(chip.processor) + OTHER_FLASH > 1024 * chip.flash
        ram = self.memory + OTHER_RAM > 1024 * chip.ram
        return ["flash"] * flash + ["RAM"] * ram


def estimate(file: DcfFile, max_memory: int | None) -> ProgramEstimate | str:
    """Export the network in 8 bits, and return the needs of its program, or the reason why there is none.

    Scales come from random inputs, so the program has the right size but is not accurate, and is discarded.
    """
    from dcformat_runtime.c_export import ExportOptions, export_c

    if file.graph is None:
        return "The file has no network, only tensors."
    if len(file.graph.inputs) != 1 or len(file.graph.outputs) != 1:
        return "dcformat export c takes networks with one input and one output."
    if file.size > _MAX_BYTES:
        return "The file is larger than the flash of every chip that this report knows."
    shape = file.graph.inputs[0].shape
    inputs = np.random.default_rng(1).standard_normal((2, *shape), np.float32)
    options = ExportOptions("int8", "fast", static_inputs=True, tests=1)
    try:
        model = file.model()
        made = export_c(model, options, inputs, max_memory=max_memory, max_work=_MAX_WORK)
    except FormatError as error:
        return f"dcformat export c cannot write this network: {error}"
    layers = [node for node in file.graph.nodes if isinstance(node, Linear | Conv)]
    row = max((_fullest_row(model.tensors[node.weight]) for node in layers if isinstance(node, Conv)), default=0)
    memory = made.arena_bytes + STACK + RAM_PER_LAYER * len(layers) + RAM_PER_ENTRY * row
    return ProgramEstimate(len(made.data), len(layers), memory)


def _fullest_row(weight: Tensor) -> int:
    """Return the number of entries in the row that has the most."""
    return int(np.diff(weight.to_csr()[0]).max(initial=0))
