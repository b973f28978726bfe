"""How fast this machine trains what a search would train: timed, not guessed."""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mindcv_mnasnet.errors import JobError, UserError
from mindcv_mnasnet.networks.cost import network_cost
from mindcv_mnasnet.recipe.recipe import load_recipe
from mindcv_mnasnet.run.log import read_log
from mindcv_mnasnet.search.candidates import Candidate, reference_of
from mindcv_mnasnet.search.evaluators import proxy_job
from mindcv_mnasnet.search.pools import Training
from mindcv_mnasnet.search.settings import Settings, changed
from mindcv_mnasnet.search.space import Space

_DRAWN = 256
_POLL_SECONDS = 0.2
_PATIENCE_SECONDS = 300.0  # for a process to start and to compile


@dataclass(frozen=True)
class Speed:
    """``images_per_second`` of one worker while all work; ``start_s`` passes before a training's second step."""

    images_per_second: float
    start_s: float


def time_trainings(settings: Settings, seconds: float = 20.0) -> Speed:
    """Train four networks of the kind that the search will, for a moment each, on all workers at once.

    They are as heavy as the search's band; without one, light, middling and heavy ones of the space.

    ``seconds`` is the time that steps are watched for, beside the starts; nothing is left behind.

    Raises:
        JobError: a training failed.
        UserError: the data set is not there.
    """
    settings = changed(settings, proxy={**settings.proxy, "log_interval": 1})
    space = settings.open_space()
    networks = typical_networks(space, max(4, settings.workers), settings.seed, _madds_wanted(settings, space))
    rounds = -(-len(networks) // settings.workers)
    found = []
    with tempfile.TemporaryDirectory(prefix="timing-") as folder:
        for start in range(0, len(networks), settings.workers):
            some = networks[start : start + settings.workers]
            some += networks[: settings.workers - len(some)]  # all workers work
            found += _round(settings, some, Path(folder), seconds / rounds)
    seconds_per_image = np.mean([1 / speed.images_per_second for speed in found])
    return Speed(float(1 / seconds_per_image), float(np.mean([speed.start_s for speed in found])))


def _madds_wanted(settings: Settings, space: Space) -> float | None:
    """Multiply-adds of a network in the middle of the band, as far as they go with latency; None without a band."""
    if settings.band is None or settings.target_network is None:
        return None
    anchor = reference_of(settings, space, settings.target_network)
    return network_cost(anchor).madds * settings.target_factor * (1 + settings.band) / 2


def typical_networks(space: Space, count: int, seed: int, wanted: float | None = None) -> list[Candidate]:
    """Random networks: those of the nearest to ``wanted`` multiply-adds, or at evenly spread ranks of them."""
    rng = np.random.default_rng(seed)
    drawn = [space.random(rng) for _ in range(_DRAWN)]
    madds = {tokens: network_cost(space.network(tokens)).madds for tokens in drawn}
    if wanted is None:
        drawn.sort(key=lambda tokens: madds[tokens])
        picked = [drawn[int((place + 0.5) * _DRAWN / count) % _DRAWN] for place in range(count)]
    else:
        picked = sorted(madds, key=lambda tokens: abs(math.log(madds[tokens] / wanted)))[:count]
    return [Candidate(number, 0, tokens, space.network(tokens), seed) for number, tokens in enumerate(picked)]


def _round(settings: Settings, candidates: list[Candidate], folder: Path, seconds: float) -> list[Speed]:
    """Their speeds while they train beside each other."""
    paths = [
        proxy_job(settings, candidate, folder / f"{candidate.number}-{place}")
        for place, candidate in enumerate(candidates)
    ]
    batch = load_recipe(overrides=settings.rung_keys(0)).batch_size
    began = time.time()
    running = [Training(path, _PATIENCE_SECONDS, 0, settings.workers, worker) for worker, path in enumerate(paths)]
    try:
        while True:
            watched = [watch(path, batch, began) for path in paths]
            if all(speed is not None and lasted >= seconds for speed, lasted in watched):
                break
            for path, training in zip(paths, running, strict=True):
                result = training.poll()
                if result is not None and result.status != "ok":
                    raise JobError(f"timing: a training of {path.parent} {result.status}: {result.reason}")
            if all(training.poll() is not None for training in running):
                watched = [watch(path, batch, began) for path in paths]
                break
            time.sleep(_POLL_SECONDS)
    finally:
        for training in running:
            training.kill()
    speeds = [speed for speed, _ in watched if speed is not None]
    if not speeds:
        raise JobError("timing: the trainings are too short to be timed; say --images_per_second")
    return speeds


def watch(job: Path, batch: int, began: float) -> tuple[Speed | None, float]:
    """A training's speed by its log so far, and the seconds it was watched for; ``began`` is seconds since 1970."""
    try:
        steps = [record for record in read_log(job.parent / "run" / "log.jsonl") if record["kind"] == "step"]
    except UserError:
        return None, 0.0
    if len(steps) < 3:
        return None, 0.0
    first, last = steps[0], steps[-1]
    lasted = last["time"] - first["time"]
    if lasted <= 0:
        return None, 0.0
    images = (last["step"] - first["step"]) * batch
    return Speed(images / lasted, first["time"] - began), lasted


def time_supernet(settings: Settings, seconds: float = 20.0) -> Speed:
    """Train a search's supernet on random images for so many seconds after its first step."""
    from mindcv_mnasnet.search.supernet.evaluator import time_steps

    return Speed(*time_steps(settings, settings.open_space(), seconds))
