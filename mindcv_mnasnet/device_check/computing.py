"""Parts that compile and compute on the device; each runs in a process of its own."""

from __future__ import annotations

import hashlib
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np

from mindcv_mnasnet.device_check.golden import BATCH, CLASSES, KEYS, LOSSES, SIZE, STEPS, TOLERANCES
from mindcv_mnasnet.device_check.parts import FAILED, OK, Outcome
from mindcv_mnasnet.devices import runtime
from mindcv_mnasnet.devices.runtime import Runtime
from mindcv_mnasnet.export.metadata import ModelMetadata
from mindcv_mnasnet.export.mindir import write_mindir
from mindcv_mnasnet.export.mindspore_runtime import MindIRSession
from mindcv_mnasnet.model.create import create_model
from mindcv_mnasnet.networks.ascend_model import DEVICES, Choice, predict, work_of
from mindcv_mnasnet.recipe.plan import Plan
from mindcv_mnasnet.recipe.recipe import Recipe, load_recipe
from mindcv_mnasnet.train.engine import fit
from mindcv_mnasnet.train.evaluation import Evaluator
from mindcv_mnasnet.train.job import build_step
from mindcv_mnasnet.train.step import TrainStep

AMP: dict[str, dict[str, Any]] = {
    "float32": {},
    "float16": {"amp_level": "O2", "amp_dtype": "float16", "loss_scale": 1024.0},
    "bfloat16": {"amp_level": "O2", "amp_dtype": "bfloat16"},
}
_REPEATS = 20
_steps: dict[str, tuple[TrainStep, Any]] = {}
_SUNK_STEPS, _SUNK_CALL = 13, 5


def compiled(device: str, level: str) -> Outcome:
    """Compile the training step at a jit level, and take one step."""
    recipe = load_recipe(overrides=KEYS)
    machine = runtime.start(device, jit_level=level)
    step, _ = built(recipe, machine)
    began = time.perf_counter()
    loss = _loss(step, _batch())
    seconds = time.perf_counter() - began
    used = machine.jit_level or "the default"
    words = f"compiled and ran in {seconds:.0f} s, loss {loss:.3f}"
    return Outcome(
        OK, words if used == level else f"{words} ({'; '.join(machine.notes)})", {"seconds": seconds, "level": used}
    )


def steps(device: str, dtype: str) -> Outcome:
    """Ten deterministic steps against the CPU's losses."""
    recipe = load_recipe(overrides=KEYS | AMP[dtype])
    machine = runtime.start(device, deterministic=True)
    step, _ = built(recipe, machine)
    return judged(_losses(step), dtype)


def ranks(device: str) -> Outcome:
    """As one of two ranks that see the same images: losses as on one device; ``weights`` is a digest of the result."""
    recipe = load_recipe(overrides=KEYS)
    machine = runtime.start(device, True, deterministic=True)
    step, _ = built(recipe, machine)
    found = judged(_losses(step), "float32")
    digest = hashlib.sha256(b"".join(p.asnumpy().tobytes() for p in step.model.get_parameters())).hexdigest()
    facts = {**found.facts, "rank": machine.rank, "world": machine.world, "weights": digest}
    return Outcome(found.state, found.words, facts)


def sink(device: str) -> Outcome:
    """A short job on the built-in digits, sunk in calls of five steps and a shorter last one."""
    with tempfile.TemporaryDirectory() as folder:
        keys: dict[str, Any] = {
            "dataset": "digits",
            "data_dir": f"{folder}/digits",
            "ckpt_save_dir": folder,
            "device_target": device,
        }
        keys |= {"model": "mnasnet_small", "image_resize": 32, "batch_size": 16, "num_samples": 16 * _SUNK_STEPS}
        keys |= {"epoch_size": 2, "sink_size": _SUNK_CALL, "warmup_epochs": 0, "run_name": "check"}
        summary = fit(load_recipe(overrides=keys))
    words = f"{summary['steps']} steps in calls of {_SUNK_CALL} and 3: every call made the steps that it should"
    return Outcome(OK, words, {"steps": summary["steps"], "ms_per_step": summary["ms_per_step"]})


def training(device: str) -> Outcome:
    """Images/s of the published network's step on a constant batch, and how long the host takes to dispatch it."""
    recipe, machine = published(device)
    batch, size = recipe.batch_size, recipe.image_resize
    (step, _), inputs = built(recipe, machine), constant_batch(batch, size)
    facts: dict[str, Any] = {"batch": batch, "pixels": size}
    if step.steps_done() == 0:
        first = time.perf_counter()
        float(step(*inputs).asnumpy())
        facts["first_step_seconds"] = time.perf_counter() - first
    facts |= _times(lambda: step(*inputs))
    facts["images_per_second"] = 1000 * batch / facts["step_ms"]
    words = f"{facts['images_per_second']:.0f} images/s, {facts['step_ms']:.1f} ms a step of {batch} at {size} pixels"
    words += f", which the host dispatches in {facts['dispatch_ms']:.1f} ms"
    if machine.device != "CPU":
        facts["model_ms"] = {
            name: predict(work_of(recipe.network()), Choice(name, devices=1, batch=batch)).device_ms for name in DEVICES
        }
        said = ", ".join(f"{ms_:.1f} ms on {name}" for name, ms_ in facts["model_ms"].items())
        facts["peak_memory_gb"] = ms.runtime.max_memory_allocated() / 2**30
        words += f" (the model says {said}); {facts['peak_memory_gb']:.1f} GB of device memory at most"
    return Outcome(OK, words, facts)


def validation(device: str) -> Outcome:
    """Images/s of the network in validation on a constant batch."""
    recipe, machine = published(device)
    batch, size = recipe.batch_size, recipe.image_resize
    evaluator = Evaluator(recipe.network(), recipe, machine)
    images = constant_batch(batch, size)[0].asnumpy()
    evaluator.answer(images)
    began = time.perf_counter()
    for _ in range(_REPEATS):
        evaluator.answer(images)
    rate = batch * _REPEATS / (time.perf_counter() - began)
    facts = {"batch": batch, "pixels": size, "images_per_second": rate}
    return Outcome(OK, f"{rate:.0f} images/s, batches of {batch} at {size} pixels", facts)


def export(device: str) -> Outcome:
    """A MindIR file of the network, its answers against the network's."""
    runtime.start(device)
    network = load_recipe(overrides=KEYS).network()
    model = create_model(network, seed=0).set_train(False)
    images = np.random.default_rng(0).normal(size=(1, 3, SIZE, SIZE)).astype(np.float32)
    wanted = model(ms.Tensor(images)).asnumpy()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "check.mindir"
        tensors = {parameter.name: parameter.asnumpy() for parameter in model.get_parameters()}
        write_mindir(tensors, path, ModelMetadata.blank(network))
        found = MindIRSession(path).run(images)[0]
    difference = float(np.abs(found - wanted).max() / max(wanted.std(), 1e-12))
    words = f"largest difference of a logit {difference:.2g} standard deviations"
    return Outcome(OK if difference <= 0.05 else FAILED, words, {"difference": difference})


def published(device: str) -> tuple[Recipe, Runtime]:
    """The network and batch of the published speed; on CPUs a batch and images that take seconds, not minutes."""
    machine = runtime.start(device)
    batch, size = (256, 224) if machine.device != "CPU" else (BATCH, SIZE)
    return load_recipe(overrides={**KEYS, "batch_size": batch, "image_resize": size}), machine


def built(recipe: Recipe, machine: Runtime) -> tuple[TrainStep, Any]:
    """The training step of a recipe, the same one in a process, and the layout of its random inputs: there are none."""
    key = repr(sorted(recipe.to_dict().items()))
    if key not in _steps:
        plan = Plan.make(recipe, recipe.batch_size * machine.world * STEPS, 0, machine.world)
        rates = np.full(STEPS + 2 * _REPEATS, recipe.lr, np.float32)
        _steps[key] = build_step(recipe, machine, recipe.network(), plan, rates)
    return _steps[key]


def _batch() -> tuple[ms.Tensor, ms.Tensor]:
    """The images and labels of the golden losses: blocks of random color whose brightness tells the class."""
    draws = np.random.Generator(np.random.Philox(key=[20, 0]))
    labels = draws.integers(0, CLASSES, BATCH).astype(np.int32)
    coarse = draws.integers(0, 128, (BATCH, SIZE // 8, SIZE // 8, 3)) + 12 * labels[:, None, None, None]
    return ms.Tensor(coarse.repeat(8, 1).repeat(8, 2).astype(np.uint8)), ms.Tensor(labels)


def _losses(step: TrainStep) -> list[float]:
    batch = _batch()
    return [_loss(step, batch) for _ in range(STEPS)]


def _loss(step: TrainStep, batch: tuple[ms.Tensor, ms.Tensor]) -> float:
    return float(step(*batch, None).asnumpy())


def judged(losses: list[float], dtype: str) -> Outcome:
    """Losses beside the CPU's, by the tolerance of the type."""
    differences = [abs(loss / golden - 1) for loss, golden in zip(losses, LOSSES, strict=True)]
    worst = max(differences) if all(map(math.isfinite, losses)) else math.inf
    allowed = TOLERANCES[dtype]
    facts = {"losses": losses, "golden": list(LOSSES), "largest_difference": worst, "tolerance": allowed}
    words = f"losses {losses[0]:.4f} to {losses[-1]:.4f}, {100 * worst:.3f} % off at most ({100 * allowed:g} % allowed)"
    return Outcome(OK if worst <= allowed else FAILED, words, facts)


def constant_batch(batch: int, size: int) -> tuple[ms.Tensor, ms.Tensor, None]:
    """Images, labels and random inputs of a step that is only timed."""
    draws = np.random.default_rng(0)
    images = draws.integers(0, 256, (batch, size, size, 3), np.uint8)
    return ms.Tensor(images), ms.Tensor(draws.integers(0, CLASSES, batch, np.int32)), None


def _times(call: Any) -> dict[str, float]:
    """Milliseconds that a step takes, many in a row, and its call, which returns before the device is done."""
    call().asnumpy()
    began = time.perf_counter()
    dispatched = 0.0
    last = None
    for _ in range(_REPEATS):
        before = time.perf_counter()
        last = call()
        dispatched += time.perf_counter() - before
    assert last is not None
    last.asnumpy()
    total = time.perf_counter() - began
    return {"step_ms": 1000 * total / _REPEATS, "dispatch_ms": 1000 * dispatched / _REPEATS}
