"""The trainings of a search, rung by rung: what its cost and its time left are counted in."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.recipe.recipe import load_recipe
from mindcv_mnasnet.search.keys import KEEP
from mindcv_mnasnet.search.settings import Settings

FORWARD = 2  # a network answers at least twice as fast as it trains (measured: 2 to 2.7)
IMAGENET_TRAIN, IMAGENET_VAL = 1_281_167, 50_000


@dataclass(frozen=True)
class Images:
    """Images that a search's recipe trains on and validates on, and where the numbers are from."""

    train: int
    val: int
    origin: str
    here: bool = True


def images_of(settings: Settings) -> Images:
    """The images of a search's recipe; ImageNet's numbers where its data set is not on this machine."""
    recipe = settings.final_recipe()
    if recipe.dataset == "digits":
        return Images(1437, 360, "the built-in digits")
    try:
        from mindcv_mnasnet.data.sets import open_train_val

        train, val = open_train_val(recipe)
    except UserError:
        return Images(IMAGENET_TRAIN, IMAGENET_VAL, "ImageNet's number: the data set is not here", here=False)
    return Images(len(train), 0 if val is None else len(val), recipe.data_dir)


@dataclass(frozen=True)
class Rung:
    """Trainings that differ in their networks alone, of ``epochs`` epochs of ``images`` images of ``size`` pixels.

    ``validated`` images are answered ``validations`` times.
    """

    name: str
    trainings: int
    epochs: int
    images: int
    validated: int
    validations: int
    size: int

    @property
    def work(self) -> float:
        """Pixels that one training trains on, an answer at a share of that."""
        return (self.epochs * self.images + self.validations * self.validated / FORWARD) * self.size**2

    def seconds(self, images_per_second: float, start_s: float, size: int) -> float:
        """Of one training, where a worker needs ``start_s`` to begin and has that speed at ``size`` pixels."""
        return start_s + self.work / (images_per_second * size**2)


def trainings_of(settings: Settings) -> list[int]:
    """How many networks a search tries: at first, on every rung, and as finalists where it has some."""
    own = [settings.trials, *(keys[KEEP] for keys in settings.rungs), settings.finalists]
    return [count + len(settings.references) for count in own if count]


def rungs_of(settings: Settings, images: Images) -> list[Rung]:
    """The trainings of a search, as ``trainings_of`` counts them."""
    recipe = settings.final_recipe()
    whole = images.train + (images.val if recipe.val_fraction else 0)  # that a search holds a part of out
    last = len(settings.rungs) + 1
    found = []
    for rung, count in enumerate(trainings_of(settings)):
        keys = load_recipe(overrides=settings.rung_keys(rung))
        held_out = images.val if rung == last else round(whole * settings.held_out)
        train = images.train if rung == last else whole - held_out
        found.append(
            Rung(
                name="finalists" if rung == last else f"rung {rung}" if rung else "trials",
                trainings=count,
                epochs=keys.epoch_size,
                images=min(train, keys.num_samples or train),
                validated=held_out,
                validations=math.ceil(keys.epoch_size / keys.val_interval) if keys.val_while_train else 1,
                size=keys.image_resize,
            )
        )
    return found
