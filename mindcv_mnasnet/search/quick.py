"""A search from a folder of images and the name of a network: mnasnet search --images FOLDER --like NAME.

Writes the recipe, the space and the search's file, times this machine, says what it will cost, searches, trains the
finalists and exports them. All three files are kept and can be edited; mnasnet search --config goes on from them.
"""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from mindcv_mnasnet.data.index import list_folder, split
from mindcv_mnasnet.data.packs import is_pack
from mindcv_mnasnet.data.sets import open_train_val
from mindcv_mnasnet.devices.runtime import usable_cores
from mindcv_mnasnet.errors import UserError, interrupts_wait
from mindcv_mnasnet.files import new_folder, replace_file, with_home
from mindcv_mnasnet.networks.network import resolve
from mindcv_mnasnet.recipe.command_line import Parser
from mindcv_mnasnet.recipe.recipe import load_recipe
from mindcv_mnasnet.recipe.values import typed
from mindcv_mnasnet.recipe.yaml_files import to_yaml
from mindcv_mnasnet.run.progress import duration
from mindcv_mnasnet.search import budget, timing
from mindcv_mnasnet.search.candidates import reference_network
from mindcv_mnasnet.search.first_recipe import image_size, recipe_keys, space_keys
from mindcv_mnasnet.search.keys import SECTIONS
from mindcv_mnasnet.search.meters import meter_for
from mindcv_mnasnet.search.settings import Settings, load_settings

_VALIDATION = 0.15  # of a folder without a split


def main(argv: Sequence[str]) -> int:
    """Search as the command line says; returns the exit code."""
    options = _parser().parse_args(argv)
    factor = parse_target(options.target)
    seconds = budget.parse_duration(options.budget)
    images, workers = with_home(options.images), _key("workers", options.workers, usable_cores())
    name = _key("run_name", options.run_name, f"search_{images.resolve().name}")
    folder = new_folder(with_home(options.search_dir), name, exact=True)
    try:
        with _ended_by_sigterm():
            settings = load_settings(write_files(folder, images, options.like, factor, workers))
            if not options.dry_run:
                meter_for(settings)  # a runtime that is not installed is said before minutes have gone by
            print(f"recipe, space and search are in {folder}; they can be edited\ntiming this machine ...", flush=True)
            settings = fit_budget(settings, seconds)
    except BaseException:  # a next try with other words may take the same folder
        shutil.rmtree(folder, ignore_errors=True)
        raise
    print(describe(settings), flush=True)
    if options.dry_run:
        return 0
    with interrupts_wait():
        from mindcv_mnasnet.search import session  # loads MindSpore
    session.begin(settings)
    return 0


def _key(name: str, given: str | None, default: Any) -> Any:
    """A key of searches as the command line gives it."""
    return default if given is None else typed(name, given, "command line", SECTIONS)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Within it, SIGTERM is an exception, so that nothing half made stays."""

    def end(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _parser() -> Parser:
    parser = Parser(description=__doc__)
    parser.add_argument("--images", required=True, help="folder of classes, or of train/ and val/ (or test/)")
    parser.add_argument(
        "--like", default="mnasnet_small", help="network (NAME, FILE.yaml, either @WIDTH) to do better than"
    )
    parser.add_argument("--target", default="1x", help="share of its latency that is wanted, such as 0.5x (default 1x)")
    parser.add_argument("--budget", default="2h", help="time for the search, such as 90min; finalists come on top")
    parser.add_argument("--workers", help="trainings at once (default: this machine's cores)")
    parser.add_argument("--search_dir", default="runs", help="folder of search folders")
    parser.add_argument("--run_name", help="folder below search_dir (default: search_ and the images' folder)")
    parser.add_argument("--dry_run", action="store_true", help="write the files and say what it costs, no more")
    return parser


def parse_target(text: str) -> float:
    """The factor of ``0.5x``.

    Raises:
        UserError: the text is not a share.
    """
    try:
        factor = float(text.removesuffix("x"))
    except ValueError:
        factor = 0.0
    if not 0 < factor <= 100:
        raise UserError(f"target: {text!r} is no share of a latency, such as 1x or 0.5x")
    return factor


def write_files(folder: Path, images: Path, like: str, factor: float, workers: int) -> Path:
    """``recipe.yaml``, ``space.yaml`` and ``search.yaml`` in a folder; returns the last one.

    Raises:
        UserError: the folder has no classes of images, or the model is unknown.
    """
    network = reference_network(like, resolve("mnasnet_small"))
    if not images.is_dir():
        raise UserError(f"images: {images} is not a folder")
    folder.mkdir(parents=True, exist_ok=True)
    data = _with_split(images, folder)
    train, _ = open_train_val(load_recipe(overrides=data))
    recipe, space = (str((folder / name).resolve()) for name in ("recipe.yaml", "space.yaml"))
    replace_file(Path(recipe), to_yaml(recipe_keys(network, data, len(train), image_size(train))).encode())
    replace_file(Path(space), to_yaml(space_keys(network)).encode())
    search = {
        "space": space,
        "strategy": "predictor",
        "generation": budget.BATCH,
        "recipe": recipe,
        "references": [recipe],
        "target": {"network": recipe, "factor": factor},
        "band": 0.85,
        "reward": "hard",
        "held_out": budget.held_out_share(len(train)),
        "workers": workers,
        "finalists": 2,
        "top": 2,
        "search_dir": str(folder),
        "run_name": "search",
        "proxy": {"val_while_train": False},
    }
    replace_file(folder / "search.yaml", to_yaml(search).encode())
    return folder / "search.yaml"


def _with_split(images: Path, folder: Path) -> dict[str, Any]:
    """Keys of the data set; a folder without a split gets one, of links, so that no search sees what is held back."""
    if (images / "train").is_dir():
        found = next((name for name in ("val", "test") if (images / name).is_dir()), None)
        if found is None:
            raise UserError(f"{images} has a folder train and neither val nor test beside it")
        return {"data_dir": str(images.resolve()), "val_split": found}
    if is_pack(images):
        raise UserError(f"images: {images} is a pack without a split; name the folder that it was packed from")
    parts = dict(zip(("train", "val"), split(list_folder(images), _VALIDATION, seed=0), strict=True))
    for name, part in parts.items():
        for number, label in enumerate(part.labels):
            source = Path(part.name(number)).resolve()
            place = folder / "images" / name / part.class_names[label]
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number:07d}{source.suffix}").symlink_to(source)
    return {"data_dir": str((folder / "images").resolve()), "val_split": "val"}


def fit_budget(settings: Settings, seconds: float) -> Settings:
    """The settings with as many networks, rungs and epochs as this machine has time for; the file says so too."""
    recipe = settings.final_recipe()
    train, _ = open_train_val(recipe)
    speed = timing.time_trainings(settings)
    held_out = round(settings.held_out * len(train))
    found = budget.plan(
        seconds,
        settings.workers,
        len(train) - held_out,
        held_out,
        speed.images_per_second,
        speed.start_s,
        recipe.epoch_size,
    )
    schedules = [_schedule(epochs) for epochs in found.epochs]
    settings = replace(
        settings,
        trials=found.networks[0],
        population=max(6, found.networks[0] // 3),
        proxy={**settings.proxy, **schedules[0]},
        rungs=tuple({"keep": n, **keys} for n, keys in zip(found.networks[1:], schedules[1:], strict=True)),
    )
    replace_file(settings.origin, settings.dump().encode())
    longest = duration(sum(found.seconds))
    print(f"{speed.images_per_second:.0f} images/s per worker; the search takes about {longest}", flush=True)
    finalists = (settings.finalists + 1) * recipe.epoch_size * len(train) / speed.images_per_second / settings.workers
    print(f"the finalists' trainings take about {duration(finalists)} more", flush=True)
    return settings


def _schedule(epochs: int) -> dict[str, Any]:
    """A cosine of its own for so many epochs."""
    warm_up = min(1.0, 0.2 * epochs)
    return {"epoch_size": epochs, "warmup_epochs": warm_up, "decay_epochs": epochs - warm_up}


def describe(settings: Settings) -> str:
    """Lines on what the search will do."""
    epochs = [settings.rung_keys(rung)["epoch_size"] for rung in range(len(settings.rungs) + 2)]
    networks = [settings.trials, *(keys["keep"] for keys in settings.rungs), settings.finalists]
    rows = [f"{number} networks of {n} epoch(s)" for number, n in zip(networks, epochs, strict=True)]
    return f"{', then '.join(rows)}, within {settings.target_factor:g} of the latency of {settings.target_network}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
