"""Packs a language model and generates text from the packed file, one token at a time.

    python benchmarks/interop/stories.py ../shared/data/stories260k stories.dcf

The folder has stories260K.bin, the smallest checkpoint of llama2.c. The packed network computes one step: it takes a
token, its position, and the keys and values of all positions so far, and returns the logits and the new keys and
values. Those have a fixed size, so a session needs nothing but its inputs. The text is compared with that of `Llama`,
an ordinary forward pass in PyTorch over the whole text so far.
"""

from __future__ import annotations

import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import dcformat_runtime
import numpy as np
import torch
from dcformat_pruning import from_module
from dcformat_runtime import Session
from torch import Tensor, nn
from torch.nn import functional

import dcformat

#: The token that begins a text.
START = 1

#: The number of positions for which the packed network has space.
ROOM = 256


class Sizes(NamedTuple):
    """The sizes of a network, with which a checkpoint of llama2.c begins."""

    dim: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    positions: int


class Block(nn.Module):
    """A layer: attention to all positions so far, and a gated feed-forward part."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width = sizes.dim // sizes.heads
        self.heads, self.groups, self.width = sizes.heads, sizes.heads // sizes.kv_heads, width
        self.attention_norm = nn.RMSNorm(sizes.dim, eps=1e-5)
        self.wq = nn.Linear(sizes.dim, sizes.dim, bias=False)
        self.wk = nn.Linear(sizes.dim, sizes.kv_heads * width, bias=False)
        self.wv = nn.Linear(sizes.dim, sizes.kv_heads * width, bias=False)
        self.wo = nn.Linear(sizes.dim, sizes.dim, bias=False)
        self.feed_norm = nn.RMSNorm(sizes.dim, eps=1e-5)
        self.w1 = nn.Linear(sizes.dim, sizes.hidden, bias=False)
        self.w2 = nn.Linear(sizes.hidden, sizes.dim, bias=False)
        self.w3 = nn.Linear(sizes.dim, sizes.hidden, bias=False)

    def projected(self, x: Tensor, angles: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the queries, keys and values of some positions, ``(batch, heads, positions, width)`` each."""
        x = self.attention_norm(x)
        q, k, v = (w(x).unflatten(-1, (-1, self.width)).transpose(1, 2) for w in (self.wq, self.wk, self.wv))
        return rotated(q, angles), rotated(k, angles), v

    def finished(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
        """Return the result for queries ``q``, which may see the keys and values that `seen` is true for."""
        k, v = k.repeat_interleave(self.groups, 1), v.repeat_interleave(self.groups, 1)
        scores = (q @ k.transpose(2, 3)) / self.width**0.5
        weights = scores.masked_fill(~seen, -1e9).softmax(-1)
        x = x + self.wo((weights @ v).transpose(1, 2).flatten(2))
        y = self.feed_norm(x)
        return x + self.w2(functional.silu(self.w1(y)) * self.w3(y))


def rotated(x: Tensor, angles: Tensor) -> Tensor:
    """Turn pairs of numbers by angles, which depend on the position (rotary embeddings)."""
    cos, sin = angles[..., 0], angles[..., 1]
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


class Llama(nn.Module):
    """The network in its usual form: from all tokens of a text to the logits of each next one."""

    def __init__(self, sizes: Sizes, angles: Tensor) -> None:
        super().__init__()
        self.embedding = nn.Embedding(sizes.vocabulary, sizes.dim)
        self.blocks = nn.ModuleList([Block(sizes) for _ in range(sizes.layers)])
        self.norm = nn.RMSNorm(sizes.dim, eps=1e-5)
        self.sizes = sizes
        self.register_buffer("angles", angles)  # (positions, width / 2, 2): cosines and sines

    def forward(self, tokens: Tensor) -> Tensor:
        x, count = self.embedding(tokens), tokens.shape[1]
        seen = torch.ones(count, count, dtype=torch.bool).tril()
        for block in self.blocks:
            x = block.finished(x, *block.projected(x, self.angles[:count]), seen)
        return self.norm(x) @ self.embedding.weight.T


class Step(nn.Module):
    """One step of a network: from a token and the state so far to the logits and the new state."""

    def __init__(self, llama: Llama) -> None:
        super().__init__()
        self.llama = llama

    def forward(self, token: Tensor, position: Tensor, keys: Tensor, values: Tensor) -> dict[str, Tensor]:
        """Take ``token`` and ``position`` (batch, 1), and a state of (batch, layers, kv_heads, ROOM, width) each."""
        llama = self.llama
        x, angles = llama.embedding(token), llama.angles[position].unsqueeze(1)
        places = torch.arange(keys.shape[3])
        here, seen = (places == position)[:, None, :, None], (places <= position)[:, None, None]
        new_keys, new_values = [], []
        for number, block in enumerate(llama.blocks):
            q, k, v = block.projected(x, angles)
            new_keys.append(torch.where(here, k, keys[:, number]))
            new_values.append(torch.where(here, v, values[:, number]))
            x = block.finished(x, q, new_keys[-1], new_values[-1], seen)
        logits = (llama.norm(x) @ llama.embedding.weight.T)[:, 0]
        return {"logits": logits, "new_keys": torch.stack(new_keys, 1), "new_values": torch.stack(new_values, 1)}


def load_llama(path: Path) -> Llama:
    """Read a checkpoint of llama2.c whose classifier is the embedding."""
    data = path.read_bytes()
    sizes = Sizes(*struct.unpack("<7i", data[:28]))
    numbers, taken = torch.from_numpy(np.frombuffer(data, "<f4", offset=28).copy()), 0

    def take(*shape: int) -> Tensor:
        nonlocal taken
        count = int(np.prod(shape))
        taken += count
        return numbers[taken - count : taken].reshape(shape)

    parts = {"embedding.weight": take(sizes.vocabulary, sizes.dim)}
    width, layers = sizes.dim // sizes.heads, sizes.layers
    small, dim, hidden = sizes.kv_heads * width, sizes.dim, sizes.hidden
    shapes = {
        "attention_norm": (dim,), "wq": (dim, dim), "wk": (small, dim), "wv": (small, dim), "wo": (dim, dim),
        "feed_norm": (dim,), "w1": (hidden, dim), "w2": (dim, hidden), "w3": (hidden, dim),
    }  # fmt: skip
    for name, shape in shapes.items():
        for number, values in enumerate(take(layers, *shape)):
            parts[f"blocks.{number}.{name}.weight"] = values
    parts["norm.weight"] = take(dim)
    angles = torch.stack((take(sizes.positions, width // 2), take(sizes.positions, width // 2)), -1)
    llama = Llama(sizes, angles).eval()
    llama.load_state_dict({**parts, "angles": angles})
    return llama


def packed(llama: Llama, path: Path) -> None:
    """Pack a step of a network."""
    sizes = llama.sizes
    state = torch.zeros(2, sizes.layers, sizes.kv_heads, ROOM, sizes.dim // sizes.heads)
    whole = torch.zeros(2, 1, dtype=torch.int64)
    inputs = {"token": whole, "position": whole, "keys": state, "values": state}
    dcformat.save(from_module(Step(llama), inputs), path)


@torch.no_grad()
def plain_tokens(llama: Llama) -> Iterator[int]:
    """Generate tokens, the most likely one each time, from all that came before."""
    tokens = torch.tensor([[START]])
    while True:
        token = int(llama(tokens)[0, -1].argmax())
        yield token
        tokens = torch.cat((tokens, torch.tensor([[token]])), 1)


def packed_tokens(session: Session) -> Iterator[int]:
    """Generate tokens, the most likely one each time, from the last one and the state."""
    shapes = {info.name: info.shape for info in session.inputs}
    keys, values = (np.zeros((1, *shapes[name][1:]), np.float32) for name in ("keys", "values"))
    token = START
    for position in range(ROOM):
        given = {"token": np.array([[token]]), "position": np.array([[position]]), "keys": keys, "values": values}
        results = session(given)
        keys, values = results["new_keys"], results["new_values"]
        token = int(results["logits"][0].argmax())
        yield token


def text(path: Path, tokens: list[int]) -> str:
    """Return the text of tokens, by a tokeniser of llama2.c."""
    data, pieces, place = path.read_bytes(), [], 4
    while place < len(data):
        (length,) = struct.unpack_from("<i", data, place + 4)
        pieces.append(data[place + 8 : place + 8 + length].decode(errors="replace"))
        place += 8 + length
    return "".join(pieces[token] for token in tokens)


def main() -> None:
    """Pack the network, and compare and print the generated text."""
    folder, path, count = Path(sys.argv[1]), Path(sys.argv[2]), 200
    llama = load_llama(folder / "stories260K.bin")
    packed(llama, path)
    session = dcformat_runtime.load(path, threads=1)
    torch.set_num_threads(1)
    for tokens in (packed_tokens(session), plain_tokens(llama)):
        next(tokens)  # the first call is slower
    started = time.perf_counter()
    found = [token for token, _ in zip(packed_tokens(session), range(count), strict=False)]
    took = time.perf_counter() - started
    expected = [token for token, _ in zip(plain_tokens(llama), range(count), strict=False)]
    same = sum(a == b for a, b in zip(found, expected, strict=True))
    print(text(folder / "tok512.bin", found))
    print(
        f"{path}: {path.stat().st_size:,} bytes; {same} of {count} tokens as in PyTorch; {count / took:,.0f} a second"
    )


if __name__ == "__main__":
    main()
