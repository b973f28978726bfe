"""One trial's training, in a process of its own: python -m mindcv_mnasnet.search.proxy JOB.json.

A process per trial means that a crash, a leak, a hang or a lack of memory ends a trial and nothing else, and that time
limits hold. It costs the start of an interpreter, 3 seconds or so. The result is written beside the job.
"""

from __future__ import annotations

import ctypes
import json
import math
import resource
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from mindcv_mnasnet.errors import DivergedError, JobError, UserError, first_line
from mindcv_mnasnet.files import replace_file
from mindcv_mnasnet.recipe.recipe import Recipe, load_recipe
from mindcv_mnasnet.run.checkpoint import newest_intact
from mindcv_mnasnet.run.scores import of_better_weights, score_of

RESULT = "result.json"
_PR_SET_PDEATHSIG = 1  # of prctl(2): the signal for this process when its parent dies


def write_job(folder: Path, recipe: dict[str, Any], held_out: float | None, memory_gb: float | None) -> Path:
    """Put down what ``run`` needs; the folder is emptied of another job, and an attempt at this one goes on.

    ``held_out`` None trains on all images, validates as the recipe says, and keeps the checkpoints.
    """
    path = folder / "job.json"
    content = json.dumps({"recipe": recipe, "held_out": held_out, "memory_gb": memory_gb}).encode()
    if not path.is_file() or json.loads(path.read_bytes()) != json.loads(content):  # 1 and 1.0 are one number
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        replace_file(path, content)
    return path


def run(path: Path) -> dict[str, Any]:
    """Train as ``path`` says and return status, reason and accuracy, in [0, 1], on the part that was held out.

    A training that was cut off goes on from its checkpoint; without one it begins again.
    """
    job = json.loads(path.read_text())
    if job["memory_gb"] is not None:
        most = int(job["memory_gb"] * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    try:
        if _was_begun(path.parent / "run"):
            recipe = load_recipe(overrides={"resume": str(path.parent / "run")})
        elif job["held_out"] is None:
            recipe = load_recipe(overrides={**job["recipe"], "ckpt_save_dir": str(path.parent), "run_name": "run"})
        else:
            recipe = held_out_recipe(load_recipe(overrides=job["recipe"]), job["held_out"], path.parent)
        from mindcv_mnasnet.train.engine import fit

        summary = fit(recipe, averaged_only=True)
    except DivergedError as error:
        return {"status": "diverged", "reason": str(error)}
    except (JobError, UserError) as error:
        return {"status": "failed", "reason": str(error)}
    except MemoryError:
        return {"status": "memory", "reason": f"more than trial_memory_gb {job['memory_gb']} needed"}
    except RuntimeError as error:
        short = "memory" in str(error).lower() or "bad_alloc" in str(error)
        return {"status": "memory" if short else "failed", "reason": first_line(error)}
    if summary["stopped"]:
        return {"status": "failed", "reason": "stopped from outside"}
    metrics = summary["metrics"]
    top1 = score_of(metrics)
    if job["held_out"] is not None:
        shutil.rmtree(path.parent / "run" / "checkpoints", ignore_errors=True)  # of thousands of trials
    if top1 is None or not math.isfinite(top1):
        return {"status": "diverged", "reason": "no accuracy was measured"}
    loss = of_better_weights(metrics, "loss")
    return {"status": "ok", "accuracy": top1 / 100, "loss": loss, "images": metrics.get("val_images")}


def _was_begun(folder: Path) -> bool:
    """Whether a training left a whole checkpoint in its run folder; a folder without one is deleted."""
    if newest_intact(folder / "checkpoints")[0] is not None:
        return True
    shutil.rmtree(folder, ignore_errors=True)
    return False


def held_out_recipe(recipe: Recipe, held_out: float, folder: Path) -> Recipe:
    """The recipe with a part of its training images in place of its validation images, and a run folder of its own.

    The published search holds 50,000 training images out, so that what is reported in the end was never searched on.
    """
    from mindcv_mnasnet.data.sets import training_folder

    keys = {name: value for name, value in recipe.to_dict().items() if name in recipe.given}
    for name in ("val_split", "train_split", "val_labels", "val_fraction", "resume", "run_name", "dataset"):
        keys.pop(name, None)
    places = {"data_dir": str(training_folder(recipe)), "ckpt_save_dir": str(folder), "run_name": "run"}
    places["split_by"] = "position"  # as searches have always drawn: a resumed one keeps its images
    # Every network is compiled once, and would push graphs out of the cache that are used again.
    return load_recipe(overrides={**keys, **places, "val_fraction": held_out, "compile_cache": False})


def end_with_parent() -> None:
    """Have this process killed when the one that started it dies, so that a resumed search finds idle cores. Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main(path: Path) -> int:
    """Run a job and write its result."""
    end_with_parent()
    result = run(path)
    replace_file(path.with_name(RESULT), json.dumps(result).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
