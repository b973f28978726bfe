"""ONNX files run by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mindcv_mnasnet.errors import UserError, first_line, require_extra
from mindcv_mnasnet.export.metadata import KEY, ModelMetadata


class OnnxSession:
    """An ONNX file on the CPU.

    Raises:
        UserError: the extra ``onnx`` is not installed, or the file is damaged or not one of this project.
    """

    channels_last = False

    def __init__(self, path: Path, threads: int | None = None):
        runtime = require_extra("onnxruntime", "onnx")
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
        try:
            self._session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime has exception types of its own and no common one
            raise UserError(f"{path} is damaged or not an ONNX file ({first_line(error)[:200]})") from None
        properties = self._session.get_modelmeta().custom_metadata_map
        if KEY not in properties:
            raise UserError(f"{path} was not exported by mindcv_mnasnet: it does not say how images are prepared")
        self.metadata = ModelMetadata.from_json(properties[KEY], path)
        self._input = self._session.get_inputs()[0].name

    def run(self, x: np.ndarray) -> list[np.ndarray]:
        """The file's outputs, float32, for input as it takes it."""
        return [np.asarray(one, np.float32) for one in self._session.run(None, {self._input: x})]
