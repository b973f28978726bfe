"""Rows of the benchmark that run other libraries, ours at inference, and tools; bench_rows.py dispatches to them."""

from __future__ import annotations

import importlib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

from mindcv_mnasnet.devices.processor import usable_cores
from mindcv_mnasnet.errors import JobError
from mindcv_mnasnet.networks.network import resolve
from mindcv_mnasnet.recipe.recipe import Recipe

ROOT = Path(__file__).resolve().parents[2]

Settings = dict[str, Any]
Result = dict[str, Any]
_CALLS_OF_ONE = 100


def torch_step(settings: Settings, measure: Callable[..., Result], channels_last: bool) -> Result:
    """timm's network in a plain PyTorch training loop on one constant batch, float32."""
    torch, model, images = _torch_model(settings, channels_last, settings["batch_size"])
    labels = torch.randint(0, 1000, (settings["batch_size"],), generator=torch.Generator().manual_seed(0))
    model.train()
    optimizer = torch.optim.RMSprop(model.parameters(), 1e-3, momentum=0.9, eps=1e-3, weight_decay=1e-5)
    loss = torch.nn.CrossEntropyLoss(label_smoothing=0.1)

    def step(number: int) -> float:
        optimizer.zero_grad(set_to_none=True)
        value = loss(model(images), labels)
        value.backward()
        optimizer.step()
        return float(value.detach())

    return measure(step, settings)


def torch_infer(settings: Settings) -> Result:
    """timm's network at inference, PyTorch eager, channels_last."""
    torch, model, images = _torch_model(settings, True, settings["batch_size"])
    model.eval()
    with torch.inference_mode():
        return _timed(lambda: model(images), settings["batch_size"], settings["steps"], settings["warm_up"])


def torch_infer_one(settings: Settings) -> Result:
    """The same with one image and one thread."""
    torch, model, images = _torch_model(settings, True, 1)
    torch.set_num_threads(1)
    model.eval()
    with torch.inference_mode():
        return _timed(lambda: model(images), 1, _CALLS_OF_ONE, 10)


def import_torchvision() -> ModuleType:
    """torchvision, whose compiled operators may not fit a CPU build of torch and are not used here."""
    import torch

    try:
        return importlib.import_module("torchvision")
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        return importlib.import_module("torchvision")


def _torch_model(settings: Settings, channels_last: bool, batch: int) -> tuple[Any, Any, Any]:
    import torch

    import_torchvision()  # timm needs it
    import timm

    torch.manual_seed(0)
    model = timm.create_model(settings["timm_model"])
    images = torch.randn(batch, 3, settings["image_size"], settings["image_size"])
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    return torch, model, images


def save_timm(settings: Settings, path: str) -> None:
    """Write the state dict of timm's network with random weights."""
    torch, model, _ = _torch_model(settings, False, 1)
    torch.save(model.state_dict(), path)


def infer(settings: Settings) -> Result:
    """Our network at inference through MindSpore, graph mode."""
    import mindspore as ms
    import numpy as np

    from mindcv_mnasnet.devices import runtime
    from mindcv_mnasnet.model.create import create_model

    runtime.start("auto")
    model = create_model(settings["model"], image_size=settings["image_size"]).set_train(False)
    shape = (settings["batch_size"], 3, settings["image_size"], settings["image_size"])
    images = ms.Tensor(np.random.default_rng(0).normal(size=shape).astype(np.float32))
    return _timed(lambda: model(images).asnumpy(), settings["batch_size"], settings["steps"], settings["warm_up"])


def artifact_one(settings: Settings, kind: str) -> Result:
    """Our exported network, one image and one thread, through ``onnxruntime`` or ``litert``."""
    from mindcv_mnasnet.latency.record import LatencySettings
    from mindcv_mnasnet.latency.runtime import RuntimeMeter

    network = resolve(settings["model"], image_size=settings["image_size"])
    found = RuntimeMeter(LatencySettings(kind, repetitions=_CALLS_OF_ONE)).measure(network)
    return {"images_per_second": 1000 / found.median_ms, "ms_per_step": found.median_ms}


def _timed(call: Callable[[], Any], batch: int, calls: int, warm_up: int) -> Result:
    for _ in range(warm_up):
        call()
    times = []
    for _ in range(calls):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    seconds = sorted(times)[len(times) // 2]
    return {"images_per_second": batch / seconds, "ms_per_step": 1000 * seconds}


def mindcv_pipeline(settings: Settings, recipe: Recipe, passes: int) -> Result:
    """MindCV's input pipeline with the same augmentation, alone."""
    loader = _mindcv_loader(settings, recipe)
    batches = loader.create_tuple_iterator(num_epochs=passes)
    count = 0
    next(iter(batches))
    start = time.perf_counter()
    for _ in range(passes):
        count += sum(1 for _ in batches)
    if not count:
        raise JobError("MindCV's pipeline gave no batches")
    return {"images_per_second": count * settings["batch_size"] / (time.perf_counter() - start)}


def _mindcv_loader(settings: Settings, recipe: Recipe) -> Any:
    from mindcv.data import create_dataset, create_loader, create_transforms

    cores = usable_cores()
    root = settings["data_dir"]
    dataset = create_dataset(name="imagenet", root=root, split="train", shuffle=True, num_parallel_workers=cores)
    transforms = create_transforms(
        dataset_name="imagenet",
        image_resize=recipe.image_resize,
        is_training=True,
        scale=recipe.scale,
        ratio=recipe.ratio,
        hflip=recipe.hflip,
        color_jitter=recipe.color_jitter,
        interpolation=recipe.interpolation,
        auto_augment=recipe.auto_augment,
        mean=recipe.mean,
        std=recipe.std,
        re_prob=recipe.re_prob,
    )
    return create_loader(
        dataset=dataset,
        batch_size=settings["batch_size"],
        drop_remainder=True,
        is_training=True,
        transform=transforms,
        num_parallel_workers=cores,
    )


def torch_pipeline(settings: Settings, recipe: Recipe, passes: int) -> Result:
    """torchvision's folder and transforms in PyTorch's DataLoader, one worker process per core."""
    import torch

    import_torchvision()
    from torchvision import datasets, transforms

    low, high = recipe.scale
    steps = [transforms.RandomResizedCrop(recipe.image_resize, (low, high)), transforms.RandomHorizontalFlip()]
    if recipe.color_jitter:
        steps.append(transforms.ColorJitter(*(recipe.color_jitter,) * 3))
    mean, std = ([value / 255 for value in values] for values in (recipe.mean, recipe.std))
    steps += [transforms.ToTensor(), transforms.Normalize(mean, std)]
    folder = datasets.ImageFolder(str(Path(settings["data_dir"]) / "train"), transforms.Compose(steps))
    cores = usable_cores()
    loader = torch.utils.data.DataLoader(
        folder, settings["batch_size"], shuffle=True, num_workers=cores, drop_last=True, persistent_workers=True
    )
    next(iter(loader))
    start = time.perf_counter()
    count = sum(1 for _ in range(passes) for _ in loader)
    return {"images_per_second": count * settings["batch_size"] / (time.perf_counter() - start)}


def mindcv_start(settings: Settings, recipe: Recipe) -> Result:
    """MindCV's calls from the command to the end of the first step: data, network, loss, optimizer, one batch."""
    import mindspore as ms
    from mindcv.loss import create_loss
    from mindcv.models import create_model
    from mindcv.optim import create_optimizer
    from mindspore import nn

    ms.set_context(mode=ms.GRAPH_MODE)
    loader = _mindcv_loader(settings, recipe)
    network = create_model(settings["mindcv_model"], num_classes=1000)
    loss = create_loss(name="CE", label_smoothing=0.1)
    optimizer = create_optimizer(network.trainable_params(), opt="rmsprop", lr=1e-3, momentum=0.9, weight_decay=1e-5)
    train = nn.TrainOneStepCell(nn.WithLossCell(network, loss), optimizer).set_train()
    images, labels = next(iter(loader.create_tuple_iterator(num_epochs=1)))
    train(images, labels).asnumpy()
    return {"seconds": time.time() - settings["began"]}


def train_start(settings: Settings, run: Callable[[Settings], Result]) -> Result:
    """train.py from the command to the end of its first step."""
    result = run({**settings, "warm_up": 1, "steps": 1})
    return {"seconds": result["start_seconds"], "first_step_seconds": result["first_step_seconds"]}


def convert(settings: Settings, exported: str | None = None) -> Result:
    """tools/convert.py on timm's weights; or, with ``exported``, tools/export.py on the result."""
    with TemporaryDirectory() as folder:
        theirs, ours = f"{folder}/timm.pth", f"{folder}/ours.safetensors"
        save_timm(settings, theirs)
        seconds = _tool_seconds("convert.py", theirs, ours)
        if exported:
            (Path(folder) / "val").symlink_to(Path(settings["data_dir"], "train").resolve())
            words = ("--format", exported, "--data_dir", folder, "--check_images", "32")
            seconds = _tool_seconds("export.py", ours, *words)
    return {"seconds": seconds}


def _tool_seconds(tool: str, *words: str) -> float:
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / tool), *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise JobError(f"{tool} failed: {done.stderr.strip()}")
    return time.perf_counter() - began
