"""Kernels of a training step, ours beside MindCV's through its own trainer, both dry-run: tools/bench/launches.py.

The recipe is MindCV's own, mnasnet_0.75_ascend.yaml. MindCV's step is the one that its train.py builds: its network,
loss, schedule, optimizer and ``create_trainer``, fed one batch of zeros.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)

from mindcv_mnasnet.errors import UserError, run_cli
from mindcv_mnasnet.files import replace_file
from mindcv_mnasnet.recipe.recipe import load_recipe

RECIPE = ROOT / "configs/mnasnet/mnasnet_0.75_ascend.yaml"
_BATCH = 32  # which no count depends on


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; returns the exit code."""
    options = _parser().parse_args(argv)
    if options.mindcv:
        return train_mindcv(options.levels[0])
    from mindcv_mnasnet.dry_run.report import Phase, Report
    from mindcv_mnasnet.dry_run.run import dry_run, follow

    if importlib.util.find_spec("mindcv") is None:
        raise UserError("mindcv is not installed; make bench installs it")
    recipe = load_recipe(RECIPE, {"batch_size": _BATCH})
    rows = []
    print("| level | devices | of | kernels | collectives | copies |\n|---|---|---|---|---|---|", flush=True)

    def say(level: str, count: int, name: str, train: Phase) -> None:
        cells = (level, count, name, f"{train.launched:,}", train.collectives, train.kernels["TensorMove"])
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)
        rows.append({"level": level, "devices": count, "of": name, "kernels": train.launched, **vars(train)})

    for level in options.levels:
        for count in options.devices:
            say(level, count, "ours", dry_run(recipe, RECIPE.stem, count, level, ("train",)).phase("train"))
            theirs = Report("MindCV's trainer", level, count)
            follow(theirs, [str(Path(__file__).resolve()), "--mindcv", "--levels", level])
            say(level, count, "MindCV", theirs.phase("train"))
    if options.json:
        replace_file(options.json, (json.dumps(rows, indent=2) + "\n").encode())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--levels", nargs="+", choices=("O0", "O1"), default=["O0", "O1"])
    parser.add_argument("--devices", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all counts")
    parser.add_argument("--mindcv", action="store_true", help=argparse.SUPPRESS)  # the process that MindCV trains in
    return parser


def train_mindcv(level: str) -> int:
    """One step of MindCV's trainer, in the environment of a dry run."""
    import numpy as np
    from mindcv.loss import create_loss
    from mindcv.models import create_model
    from mindcv.optim import create_optimizer
    from mindcv.scheduler import create_scheduler
    from mindcv.utils import create_trainer
    from mindspore import dataset

    from mindcv_mnasnet.devices import runtime
    from mindcv_mnasnet.dry_run.job import phase

    recipe = load_recipe(RECIPE)
    runtime.start("Ascend", None, level)
    network = create_model("mnasnet_075", num_classes=recipe.num_classes)
    loss = create_loss(name="CE", label_smoothing=recipe.label_smoothing)
    rates = create_scheduler(
        1, scheduler="cosine_decay", lr=recipe.lr, min_lr=1e-10, warmup_epochs=5, decay_epochs=345, num_epochs=350
    )
    optimizer = create_optimizer(
        network.trainable_params(),
        opt="rmsprop",
        lr=rates,
        weight_decay=recipe.weight_decay,
        momentum=recipe.momentum,
        eps=recipe.eps,
        loss_scale=recipe.loss_scale,
    )
    trainer = create_trainer(
        network, loss, optimizer, set(), amp_level="O0", amp_cast_list="", loss_scale_type="fixed", loss_scale=256.0
    )
    size = recipe.image_resize
    arrays = np.zeros((_BATCH, 3, size, size), np.float32), np.zeros(_BATCH, np.int32)
    batches = dataset.NumpySlicesDataset(arrays, ["image", "label"], shuffle=False).batch(_BATCH)
    with phase("train"):
        trainer.train(1, batches, dataset_sink_mode=False)
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main))
