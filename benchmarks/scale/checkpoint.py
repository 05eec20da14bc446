"""Makes synthetic sharded checkpoints: layers like those of a transformer, in bfloat16, some of them pruned.

All tensors are pieces of one block of 2^26 normal values, from different places, so that a large checkpoint is made
quickly. The packer treats each tensor alone, except that it would store equal tensors once; there are none.

    python benchmarks/scale/checkpoint.py DIR --gigabytes 20
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

#: A layer's tensors: name, shape, and the share of weights that are not pruned.
LAYER = (
    ("self_attn.q_proj.weight", (4096, 4096), 1.0),
    ("self_attn.k_proj.weight", (1024, 4096), 1.0),
    ("self_attn.v_proj.weight", (1024, 4096), 1.0),
    ("self_attn.o_proj.weight", (4096, 4096), 1.0),
    ("mlp.gate_proj.weight", (14336, 4096), 0.1),
    ("mlp.up_proj.weight", (14336, 4096), 0.1),
    ("mlp.down_proj.weight", (4096, 14336), 0.1),
    ("input_layernorm.weight", (4096,), 1.0),
    ("post_attention_layernorm.weight", (4096,), 1.0),
)
EMBEDDING = ("embed_tokens.weight", (128256, 4096), 1.0)
_BLOCK = 1 << 26
#: Odd, so that no two tensors begin at the same place.
_STEP = 7_777_777


def make(directory: Path, data_bytes: int, shard_bytes: int = 5_000_000_000) -> int:
    """Write a checkpoint of about `data_bytes` and its index; return the number of weights."""
    directory.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    normal = random.standard_normal(_BLOCK, np.float32) * np.float32(0.02)
    block = (normal.view("<u4") >> 16).astype("<u2")
    pruned = np.where(random.random(_BLOCK, np.float32) < 0.1, block, np.uint16(0))
    tensors = [EMBEDDING] if data_bytes > 8_000_000_000 else []
    layer = 0
    while sum(2 * int(np.prod(shape)) for _, shape, _ in tensors) < data_bytes:
        tensors += [(f"model.layers.{layer}.{name}", shape, share) for name, shape, share in LAYER]
        layer += 1
    shards: list[list[tuple[str, tuple[int, ...], float]]] = [[]]
    for tensor in tensors:
        if sum(2 * int(np.prod(shape)) for _, shape, _ in shards[-1]) > shard_bytes:
            shards.append([])
        shards[-1].append(tensor)
    where, number = {}, 0
    for place, shard in enumerate(shards, start=1):
        name = f"model-{place:05}-of-{len(shards):05}.safetensors"
        number = _write(directory / name, shard, (block, pruned), number)
        where.update({tensor[0]: name for tensor in shard})
    total = sum(2 * int(np.prod(shape)) for _, shape, _ in tensors)
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    return total // 2


def _write(
    path: Path,
    shard: list[tuple[str, tuple[int, ...], float]],
    blocks: tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16]],
    number: int,
) -> int:
    header, start = {"__metadata__": {"format": "pt"}}, 0
    for name, shape, _ in shard:
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, start + size]}  # type: ignore
        start += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, shape, share in shard:
            block, left = blocks[share < 1], int(np.prod(shape))
            at = number * _STEP % _BLOCK
            while left:
                part = block[at : at + left]
                file.write(part.tobytes())
                left -= len(part)
                at = 0
            number += 1
    return number


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--gigabytes", type=float, required=True)
    options = parser.parse_args()
    print(f"{make(options.directory, int(options.gigabytes * 1e9)):,} weights")
