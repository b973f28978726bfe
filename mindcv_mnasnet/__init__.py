"""MnasNet (CVPR 2019) on MindSpore: networks, recipes, training, validation, prediction.

Importing the package does not load MindSpore; each name below loads what it needs when it is first used::

    import mindcv_mnasnet as mm

    mm.list_models("*small*")
    model = mm.create_model("mnasnet_small", num_classes=10)
    mm.train(mm.load_recipe("configs/digits/mnasnet_small_digits.yaml"))
    mm.open_classifier("runs/mine").predict(["cat.jpg"], top=5)
"""

from importlib import import_module as _import_module
from typing import Any as _Any

from mindcv_mnasnet.devices.environment import prepare as _prepare

_prepare()  # here, as any module may be the first to load MindSpore

__version__ = "0.1.0"

_HOMES = {
    "create_model": "mindcv_mnasnet.model.create",
    "list_models": "mindcv_mnasnet.networks.network",
    "load_recipe": "mindcv_mnasnet.recipe.recipe",
    "validate": "mindcv_mnasnet.inference.evaluate",
    "open_classifier": "mindcv_mnasnet.inference.predict",
    "open_detector": "mindcv_mnasnet.inference.detect",
    "network_cost": "mindcv_mnasnet.networks.cost",
    "Recipe": "mindcv_mnasnet.recipe.recipe",
    "Classifier": "mindcv_mnasnet.inference.predict",
    "Prediction": "mindcv_mnasnet.inference.predict",
    "ObjectDetector": "mindcv_mnasnet.inference.detect",
    "FoundObjects": "mindcv_mnasnet.inference.detect",
}
__all__ = ["train", *_HOMES]


def __getattr__(name: str) -> _Any:
    if name == "train":  # the sub-package, which can be called
        return _import_module("mindcv_mnasnet.train")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
