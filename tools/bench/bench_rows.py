"""The rows of tools/bench/benchmark.py, which runs each in a process of its own: bench_rows.py ROW SETTINGS RESULT.

SETTINGS is JSON, ``benchmark.settings_of``'s. RESULT is the file for what was measured, or for ``{"error": sentence}``.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# Without tools/, whose profile.py would hide Python's own from what is imported below.
sys.path[:] = [str(ROOT), *(entry for entry in sys.path if Path(entry).resolve() != ROOT / "tools" / "bench")]
peers = importlib.import_module("tools.bench.bench_peers")
inputs = importlib.import_module("tools.bench.bench_inputs")

from mindcv_mnasnet.errors import JobError, UserError
from mindcv_mnasnet.files import replace_file
from mindcv_mnasnet.recipe.recipe import Recipe, load_recipe
from mindcv_mnasnet.run.log import read_log

RECIPE = "configs/mnasnet/mnasnet_1.0_ascend.yaml"  # MindCV's own values, in float32
DIGITS_RECIPE = "configs/digits/mnasnet_small_digits.yaml"
DIGITS = 10  # classes, which that recipe leaves to its data
_RATE = 1e-3

Settings = dict[str, Any]
Result = dict[str, Any]


def recipe_values(settings: Settings) -> dict[str, Any]:
    """What the benchmark changes in ``RECIPE``."""
    return {
        "model": settings["model"],
        "batch_size": settings["batch_size"],
        "image_resize": settings["image_size"],
        "data_dir": settings["data_dir"] or "./",
        "distribute": False,
        "epoch_size": 1,
        "log_interval": settings["warm_up"],
    }


def _recipe(settings: Settings, **more: Any) -> Recipe:
    return load_recipe(ROOT / RECIPE, recipe_values(settings) | more)


def measure(step: Callable[[int], float], settings: Settings) -> Result:
    """Time ``step(number)``, which returns its loss, after ``warm_up`` steps.

    Raises:
        JobError: the loss is not finite or never changes, so that what was timed is not training.
    """
    warm_up, steps = settings["warm_up"], settings["steps"]
    began = time.perf_counter()
    first = step(0)
    compiled = time.perf_counter()
    for number in range(1, warm_up):
        step(number)
    start = time.perf_counter()
    losses = [step(number) for number in range(warm_up, warm_up + steps)]
    seconds = time.perf_counter() - start
    if not math.isfinite(losses[-1]) or losses[-1] == first:
        raise JobError(f"the loss went from {first} to {losses[-1]}: this is not training")
    return {
        "images_per_second": steps * settings["batch_size"] / seconds,
        "ms_per_step": 1000 * seconds / steps,
        "first_step_seconds": compiled - began,
        "onednn_max_cpu_isa": os.environ.get("ONEDNN_MAX_CPU_ISA", ""),
    }


def mindcv_loop(settings: Settings) -> Result:
    """MindCV's network in a plain MindSpore training loop on one constant batch, graph mode, float32."""
    import mindcv
    import mindspore as ms
    import numpy as np
    from mindspore import nn

    ms.set_context(mode=ms.GRAPH_MODE)
    network = mindcv.create_model(settings["mindcv_model"], num_classes=1000)
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)
    optimizer = nn.RMSProp(network.trainable_params(), _RATE, momentum=0.9, epsilon=1e-3, weight_decay=1e-5)
    # What MindCV's trainer comes down to. A function under ms.jit around value_and_grad was several times slower.
    train = nn.TrainOneStepCell(nn.WithLossCell(network, loss), optimizer).set_train()
    rng, size = np.random.default_rng(0), settings["image_size"]
    images = ms.Tensor(rng.normal(size=(settings["batch_size"], 3, size, size)).astype(np.float32))
    labels = ms.Tensor(rng.integers(0, 1000, settings["batch_size"], np.int32))
    return measure(lambda number: float(train(images, labels).asnumpy()), settings)


def train_step(settings: Settings, recipe: Recipe) -> Result:
    """Our compiled step of a recipe on one constant batch of pixels; drawing its random numbers is included."""
    import mindspore as ms
    import numpy as np

    from mindcv_mnasnet.devices import runtime
    from mindcv_mnasnet.model.create import create_model
    from mindcv_mnasnet.model.quantization import Quantization
    from mindcv_mnasnet.train.random_inputs import RandomLayout, draw_inputs
    from mindcv_mnasnet.train.step import TrainStep

    runtime.start(recipe.device_target, jit_level=recipe.jit_level)
    network, quantization = recipe.network(recipe.num_classes or DIGITS), Quantization.of(recipe)
    model = create_model(network, seed=recipe.seed, quantization=quantization, kernels=recipe.kernels).set_train()
    layout = RandomLayout(recipe.image_resize, model.random_columns)
    rates = np.full(settings["warm_up"] + settings["steps"], _RATE, np.float32)
    step = TrainStep(recipe, model, layout, rates).set_train()
    rng, batch, size = np.random.default_rng(0), recipe.batch_size, recipe.image_resize
    images = ms.Tensor(rng.integers(0, 256, (batch, size, size, 3), np.uint8))
    labels = ms.Tensor(rng.integers(0, network.num_classes, batch, np.int32))

    def run(number: int) -> float:
        drawn = ms.Tensor(draw_inputs(layout, batch, recipe.seed, number, 0)) if layout.columns else None
        return float(step(images, labels, drawn).asnumpy())

    return measure(run, {**settings, "batch_size": batch})


def train_py(settings: Settings) -> Result:
    """The whole of train.py on real files, from its own log; stopped once enough steps are done."""
    from mindcv_mnasnet.data.sets import open_train_val

    recipe = _recipe(settings)
    images, last = len(open_train_val(recipe)[0]), settings["warm_up"] + settings["steps"]
    if images < settings["images"]:
        raise UserError(f"{settings['data_dir']} has {images} training images, {settings['images']} are needed")
    with TemporaryDirectory() as folder:
        keys = recipe_values(settings) | {"ckpt_save_dir": folder, "run_name": "run"}
        options = [text for key, value in keys.items() for text in (f"--{key}", str(value))]
        command = [sys.executable, str(ROOT / "train.py"), "--config", str(ROOT / RECIPE), *options]
        began = time.time()
        log, output = Path(folder) / "run" / "log.jsonl", Path(folder) / "output.txt"
        with output.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT) as process:
            try:
                while process.poll() is None and not (log.is_file() and _steps_done(log) >= last):
                    time.sleep(0.2)
                process.send_signal(signal.SIGTERM)
                process.wait()
            finally:
                process.kill()
        if process.returncode or not log.is_file():
            words = output.read_text(errors="replace").split("\n")
            raise JobError("train.py failed: " + " ".join(line for line in words[-5:] if line))
        summary = json.loads((Path(folder) / "run" / "summary.json").read_text())
        return {
            **steady_state(read_log(log), settings),
            "first_step_seconds": summary["graph_compile_seconds"],
            "start_seconds": next(r["time"] for r in read_log(log) if r["kind"] == "step") - began,
            "onednn_max_cpu_isa": summary["environment"]["onednn_max_cpu_isa"],
            "recipe_fingerprint": summary["recipe_fingerprint"],
        }


def _steps_done(log: Path) -> int:
    return max((record["step"] for record in read_log(log) if record["kind"] == "step"), default=0)


def steady_state(records: list[dict[str, Any]], settings: Settings) -> Result:
    """Speed by the wall clock, and waiting for input, between step ``warm_up`` and the first line ``steps`` later."""
    warm_up, steps, batch = (settings[key] for key in ("warm_up", "steps", "batch_size"))
    lines = [record for record in records if record["kind"] == "step" and record["step"] >= warm_up]
    end = next((at for at, line in enumerate(lines) if line["step"] >= warm_up + steps), None)
    if end is None or lines[0]["step"] != warm_up:
        raise JobError(f"train.py's log does not reach step {warm_up + steps}")
    lines = lines[: end + 1]
    seconds = lines[-1]["time"] - lines[0]["time"]
    done = lines[-1]["step"] - lines[0]["step"]
    laps = [
        ((line["step"] - before["step"]) * batch / line["images_per_second"], line["data_wait_percent"])
        for before, line in pairwise(lines)
    ]
    logged = sum(lap for lap, _ in laps)
    return {
        "images_per_second": done * batch / seconds,
        "logged_images_per_second": done * batch / logged,
        "ms_per_step": 1000 * seconds / done,
        "data_wait_percent": sum(lap * waiting for lap, waiting in laps) / logged,
    }


ROWS: dict[str, Callable[[Settings], Result]] = {
    "train_step": lambda settings: train_step(settings, _recipe(settings)),
    "qat_step": lambda settings: train_step(settings, _recipe(settings, quantize=True)),
    "digits_step": lambda settings: train_step(settings, load_recipe(ROOT / DIGITS_RECIPE)),
    "train_py": train_py,
    "mindcv": mindcv_loop,
    "mindcv_avx2": mindcv_loop,
    "mindcv_start": lambda settings: peers.mindcv_start(settings, _recipe(settings)),
    "train_start": lambda settings: peers.train_start(settings, train_py),
    "timm": lambda settings: peers.torch_step(settings, measure, channels_last=False),
    "timm_channels_last": lambda settings: peers.torch_step(settings, measure, channels_last=True),
    "pipeline": lambda settings: inputs.pipeline(settings, _recipe(settings)),
    "pipeline_pack": lambda settings: inputs.packed_pipeline(settings, _recipe(settings), None),
    "pipeline_320": lambda settings: inputs.packed_pipeline(settings, _recipe(settings), 320),
    "pipeline_256": lambda settings: inputs.packed_pipeline(settings, _recipe(settings), 256),
    "mindcv_pipeline": lambda settings: peers.mindcv_pipeline(settings, _recipe(settings), inputs.passes(settings)),
    "torch_pipeline": lambda settings: peers.torch_pipeline(settings, _recipe(settings), inputs.passes(settings)),
    "infer": peers.infer,
    "timm_infer": peers.torch_infer,
    "onnx_one": lambda settings: peers.artifact_one(settings, "onnxruntime"),
    "litert_one": lambda settings: peers.artifact_one(settings, "litert"),
    "timm_one": peers.torch_infer_one,
    "convert": peers.convert,
    "export_onnx": lambda settings: peers.convert(settings, "onnx"),
    "export_tflite": lambda settings: peers.convert(settings, "tflite"),
}


def main() -> int:
    row, settings, result = sys.argv[1:]
    try:
        measured = ROWS[row](json.loads(settings))
    except (UserError, JobError) as error:
        measured = {"error": str(error)}
    except Exception as error:  # MindSpore's own last words would hide the first
        measured = {"error": f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"}
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    measured["peak_memory_gb"] = round(max(resource.getrusage(one).ru_maxrss for one in who) / 2**20, 3)
    replace_file(Path(result), json.dumps(measured).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
