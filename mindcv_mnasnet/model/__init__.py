"""Networks as MindSpore cells; ``create_model`` builds one by name."""

from mindcv_mnasnet.model.create import create_model
from mindcv_mnasnet.model.mnasnet import MnasNet

__all__ = ["MnasNet", "create_model"]
