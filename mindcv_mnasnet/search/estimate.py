"""What a search would cost, before it begins."""

from __future__ import annotations

import math

import numpy as np

from mindcv_mnasnet.networks.cost import network_cost
from mindcv_mnasnet.run.progress import duration
from mindcv_mnasnet.search.settings import Settings
from mindcv_mnasnet.search.work import FORWARD, images_of, rungs_of

#: MindCV's published training speed of a MnasNet on one Ascend 910: 11,663 images/s on eight.
IMAGES_PER_SECOND = 1458.0


def estimate(settings: Settings, images_per_second: float | None = None) -> str:
    """Lines on the size of the space, the cost of its networks, and the time of all trials.

    ``images_per_second`` is of one worker; None times this machine for 20 s where the data set is here and the workers
    are this machine's cores, and takes the published speed of one NPU elsewhere. Trials that repeat an earlier network
    cost nothing, so this is the most.
    """
    space = settings.open_space()
    rng = np.random.default_rng(settings.seed)
    costs = [network_cost(space.network(space.random(rng))) for _ in range(100)]
    lines = [
        f"space {space.name}: {space.size:.3g} networks, {space.choices_per_stage} choices per stage",
        f"of 100 drawn evenly, 10 to 90 %: {_range([c.params / 1e6 for c in costs])} M parameters, "
        f"{_range([c.madds / 1e6 for c in costs])} M multiply-adds",
        f"{settings.trials} trials by {settings.chosen_strategy} in generations of {settings.generation}, "
        f"{settings.workers} at once",
    ]
    if settings.evaluator in ("surrogate", "table"):
        return "\n".join([*lines, "accuracies are made up or known already: minutes at most"])
    images = images_of(settings)
    first, *_ = rungs = rungs_of(settings, images)
    speed, start_s, source = _speed(settings, images_per_second, images.here)
    if settings.evaluator == "supernet":
        shown = f"{first.images:,} images ({images.origin}, {settings.held_out:g} held out)"
        networks = 3 if settings.supernet_sandwich else 1
        training = settings.supernet_epochs * first.images * networks / speed
        ranking = settings.trials * first.validated / (speed * FORWARD)
        lines += [
            f"the supernet: {settings.supernet_epochs} epochs of {shown}",
            f"at {speed:,.0f} images/s of its largest network ({source}): {duration(training)}, then "
            f"{duration(ranking)} for {settings.trials} trials on what is held out",
        ]
    else:
        lines.append(
            f"at {speed:,.0f} images/s per worker ({source}), {settings.held_out:g} of the training images held out "
            f"({images.origin})"
        )
        spent = passed = 0.0
        for rung in rungs:
            each = rung.seconds(speed, start_s, first.size)
            lines.append(
                f"{rung.name}: {rung.trainings} trainings, {rung.epochs} epochs of {rung.images:,} images of "
                f"{rung.size} pixels, {duration(each)} each"
            )
            spent += rung.trainings * each
            passed += math.ceil(rung.trainings / settings.workers) * each
        lines.append(f"{spent / 3600:,.1f} worker-hours, {duration(passed)} in all")
    calls = settings.latency_warm_up + settings.latency_repetitions
    return "\n".join([*lines, f"latency: {settings.latency}, {calls} calls each"])


def _speed(settings: Settings, said: float | None, data_here: bool) -> tuple[float, float, str]:
    """Images per second of one worker, seconds before its steps, and where they are from."""
    if said:
        return said, 0.0, "as said"
    if settings.pool == "ray" or not data_here:
        return IMAGES_PER_SECOND, 0.0, "one Ascend 910 as MindCV publishes it, at 224 pixels"
    from mindcv_mnasnet.search import timing

    measured = timing.time_supernet(settings) if settings.evaluator == "supernet" else timing.time_trainings(settings)
    return measured.images_per_second, measured.start_s, "timed here for 20 s"


def _range(values: list[float]) -> str:
    low, high = np.percentile(values, [10, 90])
    return f"{low:.3g} to {high:.3g}"
