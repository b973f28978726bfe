"""Accuracies of candidates with the weights of a supernet."""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
import numpy as np

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.networks.network import Network
from mindcv_mnasnet.search.supernet.network import SuperNetwork
from mindcv_mnasnet.train.preprocess import FromPixels


class Ranker:
    """Ranks candidates by their accuracy on images held out, without training them.

    Two graphs serve all candidates: one takes statistics, one answers. What the weights were trained on may not be in
    ``images``; nor may what the final network is validated on.

    Args:
        mean, std: of pixels in [0, 255], per channel (``Recipe.pixel_statistics``).
        calibration: training images, uint8 (batch, height, width, channels) each, all of one size, from which every
            candidate's batch-norm statistics are estimated: means of batch means and of unbiased batch variances.
        images, labels: images held out, uint8 (N, height, width, channels), and their classes, int32 (N,).
    Raises:
        UserError: no images, or labels that do not fit them.
    """

    def __init__(
        self,
        supernet: SuperNetwork,
        mean: Sequence[float],
        std: Sequence[float],
        calibration: Sequence[np.ndarray],
        images: np.ndarray,
        labels: np.ndarray,
    ):
        if not len(calibration) or not len(images) or len(images) != len(labels):
            raise UserError(
                f"a ranking needs calibration batches, not {len(calibration)}, and as many labels as images held "
                f"out, not {len(labels)} and {len(images)}"
            )
        self.supernet = supernet
        self.forward = FromPixels(supernet, mean, std)
        self._calibration = [ms.Tensor(batch) for batch in calibration]
        batch = min(len(images), len(calibration[0]))
        padded = np.resize(images, (-(-len(images) // batch) * batch, *images.shape[1:]))
        self._batches = [ms.Tensor(part) for part in np.split(padded, len(padded) // batch)]
        self._labels = labels

    def accuracy(self, network: Network) -> float:
        """Top-1 accuracy in [0, 1] of one of the supernet's networks, with statistics of its own.

        Raises:
            UserError: it is not one of the choices.
        """
        self.estimate(network)
        masks = self.supernet.masks(network)
        logits = [self.forward(batch, *masks).asnumpy() for batch in self._batches]
        answers = np.concatenate(logits)[: len(self._labels)].argmax(1)
        return float((answers == self._labels).mean())

    def estimate(self, network: Network) -> None:
        """Set the supernet's batch-norm statistics to those of a network; ``SuperNetwork.inherit`` then takes them."""
        masks = self.supernet.masks(network)
        self.forward.set_train()
        sums: dict[str, np.ndarray] = {}
        for batch in self._calibration:
            self.forward(batch, *masks).asnumpy()
            for name, value in self.supernet.statistics().items():
                sums[name] = sums[name] + value if name in sums else value.astype(np.float64)
        self.supernet.set_statistics({name: value / len(self._calibration) for name, value in sums.items()})
        self.forward.set_train(False)
