"""What a search would cost, before it begins."""

from __future__ import annotations

import numpy as np

from mindcv_mnasnet.cost import network_cost
from mindcv_mnasnet.progress import duration
from mindcv_mnasnet.search.settings import Settings

#: MindCV's published training speed of a MnasNet on one Ascend 910: 11,663 images/s on eight.
IMAGES_PER_SECOND = 1458.0
IMAGENET_TRAIN = 1_281_167


def estimate(settings: Settings, images_per_second: float | None = None) -> str:
    """Lines on the size of the space, the cost of its networks, and the time of all trials.

    ``images_per_second`` is of one worker; None takes the published speed of one NPU. Trials that repeat an earlier
    network cost nothing, so this is the most.
    """
    space = settings.open_space()
    rng = np.random.default_rng(settings.seed)
    costs = [network_cost(space.network(space.random(rng))) for _ in range(100)]
    lines = [
        f"space {space.name}: {space.size:.3g} networks, {space.choices_per_stage} choices per stage",
        f"of 100 drawn evenly, 10 to 90 %: {_range([c.params / 1e6 for c in costs])} M parameters, "
        f"{_range([c.madds / 1e6 for c in costs])} M multiply-adds",
        f"{settings.trials} trials by {settings.strategy} in generations of {settings.generation}, "
        f"{settings.workers} at once",
    ]
    if settings.evaluator == "surrogate":
        return "\n".join([*lines, "accuracy and latency are synthetic: minutes at most"])
    recipe = settings.final_recipe()
    keys = settings.proxy_keys(recipe)
    images, where = _images(settings)
    kept = round(images * (1 - settings.held_out))
    if keys.get("num_samples"):
        kept = min(kept, int(keys["num_samples"]))
    epochs = int(keys.get("epoch_size", recipe.epoch_size))
    speed = images_per_second or IMAGES_PER_SECOND
    source = "as said" if images_per_second else "one Ascend 910 as MindCV publishes it, at 224 pixels"
    each = epochs * kept / speed
    whole = each * settings.trials / settings.workers
    lines += [
        f"each trial: {epochs} epochs of {kept:,} pictures ({where}, {settings.held_out:g} held out)",
        f"at {speed:,.0f} images/s per worker ({source}): {duration(each)} each, "
        f"{each * settings.trials / 3600:,.1f} worker-hours, {duration(whole)} in all",
        f"latency: {settings.latency}, {settings.latency_warm_up + settings.latency_repetitions} calls each",
    ]
    return "\n".join(lines)


def _range(values: list[float]) -> str:
    low, high = np.percentile(values, [10, 90])
    return f"{low:.3g} to {high:.3g}"


def _images(settings: Settings) -> tuple[int, str]:
    """Training pictures of the base recipe's data set, and where the number is from."""
    from mindcv_mnasnet.errors import UserError

    recipe = settings.final_recipe()
    if recipe.dataset == "digits":
        return 1437, "the built-in digits"
    try:
        from mindcv_mnasnet.data.sets import open_train_val

        return len(open_train_val(recipe)[0]), recipe.data_dir
    except UserError:
        return IMAGENET_TRAIN, "ImageNet's number: the data set is not here"
