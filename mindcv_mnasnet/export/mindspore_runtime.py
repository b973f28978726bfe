"""MindIR files run by MindSpore."""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn

from mindcv_mnasnet.devices import runtime
from mindcv_mnasnet.errors import UserError, first_line
from mindcv_mnasnet.export.metadata import ModelMetadata
from mindcv_mnasnet.export.mindir import METADATA_SUFFIX


class MindIRSession:
    """A MindIR file on the current device; MindSpore sets the number of threads for the whole process.

    Raises:
        UserError: the file or the metadata beside it is missing or damaged.
    """

    channels_last = False

    def __init__(self, path: Path, threads: int | None = None):
        described = path.with_name(path.name + METADATA_SUFFIX)
        if not described.is_file():
            raise UserError(f"{described} is missing: it says how images are prepared for {path}")
        self.metadata = ModelMetadata.from_json(described.read_bytes(), described)
        runtime.start("auto")
        try:
            graph = ms.load(str(path))
        except (RuntimeError, ValueError) as error:
            raise UserError(f"{path} is damaged or not a MindIR file ({first_line(error)})") from None
        self._cell = nn.GraphCell(graph)

    def run(self, x: np.ndarray) -> list[np.ndarray]:
        """The file's outputs, float32, for input as it takes it."""
        answer = self._cell(ms.Tensor(x))
        return [one.asnumpy().astype(np.float32) for one in (answer if isinstance(answer, tuple) else (answer,))]
