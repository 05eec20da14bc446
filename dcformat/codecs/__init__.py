"""Coders of a tensor's payload, by id (spec, "Payloads"): 0 fixed width, 1 Huffman, 2 adaptive binary, 3 mixing."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from dcformat import layout

#: What users call the coders.
CODER_NAMES = {
    layout.CODER_RAW: "raw",
    layout.CODER_HUFFMAN: "huffman",
    layout.CODER_ADAPTIVE: "adaptive",
    layout.CODER_MIXING: "mixing",
}


def context_coder(coder: int) -> ModuleType:
    """Return the module of coder 2 or 3, whose chunks are range coder streams.

    It has encode, decode, encode_dense and decode_dense.
    """
    return import_module(f"dcformat.codecs.{CODER_NAMES[coder]}")
