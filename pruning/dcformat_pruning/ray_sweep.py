"""A sweep's points on a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import ray

from dcformat_pruning.sweep import Outcome, Point, SweepSettings, dense_state, images_for, work_out

#: Number of times that Ray repeats a point whose worker or machine was lost.
_RETRIES = 5


def on_ray(points: Sequence[Point], settings: SweepSettings, directory: Path) -> Iterator[tuple[Point, Outcome]]:
    """Compute points on the cluster to which this process is connected; dense networks are trained here first."""
    images = images_for(settings)
    sent = ray.put(images)
    states = {seed: ray.put(dense_state(seed, settings, images, directory)) for seed in {each.seed for each in points}}
    work = ray.remote(work_out).options(max_retries=_RETRIES, num_cpus=1)
    under_way = {work.remote(point, settings, sent, states[point.seed]): point for point in points}
    while under_way:
        (done,), _ = ray.wait(list(under_way), num_returns=1)
        yield under_way.pop(done), ray.get(done)
