"""What no trained network has: weights that are not numbers, variances below zero."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mindcv_mnasnet.errors import UserError


def require_sound(tensors: Mapping[str, np.ndarray], origin: str) -> None:
    """Refuse weights with which every answer would be nonsense.

    Raises:
        UserError: naming ``origin`` and the first tensor with NaN, an infinity or a negative variance.
    """
    for name, value in tensors.items():
        if not np.isfinite(value).all():
            raise UserError(f"{origin}: {name} has values that are not finite (NaN or infinite); its training diverged")
        if name.endswith((".moving_variance", ".running_var")) and value.size and value.min() < 0:
            raise UserError(f"{origin}: {name} has a variance of {value.min():g}; a variance is 0 or more")
