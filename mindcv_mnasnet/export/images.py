"""Real images for calibration and comparison, prepared as the checkpoint is evaluated."""

from __future__ import annotations

import numpy as np

from mindcv_mnasnet.data.index import ImageIndex
from mindcv_mnasnet.data.known import open_known_val
from mindcv_mnasnet.data.pipeline import sound_batches
from mindcv_mnasnet.data.sets import in_folder, open_train, unlabeled, validation_folder
from mindcv_mnasnet.detection import data as boxes
from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.export.metadata import ModelMetadata
from mindcv_mnasnet.recipe.recipe import Recipe


def evaluation_images(
    recipe: Recipe, metadata: ModelMetadata, data_dir: str | None, count: int, training: bool = False
) -> np.ndarray:
    """Up to ``count`` images, uint8 (N, H, W, C), spread evenly over the validation or the training images.

    Args:
        recipe: the checkpoint's; what it says of labels does not count, which nobody looks at here.
        data_dir: the data set; None is allowed for the built-in digits alone.
    Raises:
        UserError: no data set, or one without such images.
    """
    if data_dir is None and recipe.dataset != "digits":
        raise UserError("data_dir: real images are needed to check the exported file; name a data set that fits")
    recipe = in_folder(recipe, data_dir)
    detector, prepared = metadata.detector_description(), None
    if detector is not None:
        image_index: ImageIndex = boxes.open_known_val(recipe, None, metadata.data)
        prepared = boxes.preparation(recipe, detector)
    elif training:
        image_index = open_train(recipe)
    elif recipe.val_labels is not None:
        image_index = unlabeled(validation_folder(recipe))
    else:
        image_index = open_known_val(recipe, None, metadata.data)
    chosen = image_index.subset(np.linspace(0, len(image_index) - 1, min(count, len(image_index))).astype(int))
    return np.concatenate([images for images, _ in sound_batches(chosen, recipe, prepared)])
