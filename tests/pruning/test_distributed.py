"""Two processes that share every batch give the same result as one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from dcformat_pruning.data import Augmentation, Images
from dcformat_pruning.distributed import BatchShare, main
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]


def images() -> Images:
    return Images(torch.arange(24, dtype=torch.uint8).view(24, 1, 1, 1), torch.arange(24) % 3)


def test_shards_make_up_the_whole_batch() -> None:
    def drawn(source: Images | BatchShare) -> list[list[float]]:
        found = source.batches(8, torch.Generator().manual_seed(3), Augmentation())
        return [(x * 255).round().flatten().tolist() for x, _ in found]

    whole = drawn(images())
    parts = [drawn(BatchShare(images(), rank, 2)) for rank in (0, 1)]
    assert len(parts[0]) == len(whole) == 3
    for batch, left, right in zip(whole, *parts, strict=True):
        assert sorted(left + right) == sorted(batch) and len(left) == len(right) == 4


def test_batches_that_do_not_divide_and_impossible_ranks_are_refused() -> None:
    shard = BatchShare(images(), 0, 3)
    with pytest.raises(ValueError, match="batch: expected a multiple of 3 processes, found 8"):
        next(shard.batches(8, torch.Generator(), Augmentation()))
    with pytest.raises(ValueError, match="rank: expected 0 to 1, found 2"):
        BatchShare(images(), 2, 2)


@pytest.mark.slow
def test_two_gloo_processes_give_the_result_of_one(digits: Path, tmp_path: Path) -> None:
    options = ["lenet-300-100", "--epochs", "2", "--batch", "64", "--seed", "5", "--data", str(digits)]
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    main([*options[:1], str(one), *options[1:]])
    paths = os.pathsep.join(str(ROOT / part) for part in (".", "runtime", "pruning"))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "dcformat_pruning.distributed", *options[:1], str(two), *options[1:]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "validation accuracy" in done.stdout
    alone, together = load_file(one), load_file(two)
    assert set(alone) == set(together)
    moved = 0.0
    for name, weight in alone.items():
        torch.testing.assert_close(together[name], weight, rtol=1e-3, atol=2e-5)
        moved = max(moved, float((together[name] - weight).abs().max()))
    assert moved < 1e-4
