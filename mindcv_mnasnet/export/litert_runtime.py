"""TFLite files run by LiteRT."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from mindcv_mnasnet.errors import UserError, first_line, require_extra
from mindcv_mnasnet.export.metadata import KEY, ModelMetadata


class LiteRTSession:
    """A TFLite file on the CPU.

    Raises:
        UserError: the extra ``litert`` is not installed, or the file is damaged or not one of this project.
    """

    channels_last = True

    def __init__(self, path: Path, threads: int | None = None):
        interpreter = require_extra("ai_edge_litert.interpreter", "litert")
        try:
            with zipfile.ZipFile(path) as archive:
                text = archive.read(f"{KEY}.json").decode("utf-8")
        except (zipfile.BadZipFile, KeyError, OSError, UnicodeDecodeError):
            raise UserError(f"{path} is damaged or was not exported by mindcv_mnasnet") from None
        self.metadata = ModelMetadata.from_json(text, path)
        try:
            self._interpreter = interpreter.Interpreter(str(path), num_threads=threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise UserError(f"{path} is damaged: {first_line(error)}") from None
        self._input: dict[str, Any] = self._interpreter.get_input_details()[0]
        outputs: list[dict[str, Any]] = self._interpreter.get_output_details()
        self._outputs = sorted(outputs, key=lambda one: one["name"])  # their own order is not that of the function

    def run(self, x: np.ndarray) -> list[np.ndarray]:
        """The file's outputs, float32, for input as it takes it."""
        if tuple(x.shape) != tuple(self._interpreter.get_input_details()[0]["shape"]):
            self._interpreter.resize_tensor_input(self._input["index"], x.shape)
            self._interpreter.allocate_tensors()
        self._interpreter.set_tensor(self._input["index"], x.astype(self._input["dtype"], copy=False))
        self._interpreter.invoke()
        return [self._floats(output) for output in self._outputs]

    def _floats(self, output: dict[str, Any]) -> np.ndarray:
        answer = np.asarray(self._interpreter.get_tensor(output["index"]), np.float32)
        scale, zero = output["quantization"]
        return np.asarray((answer - zero) * np.float32(scale)) if scale else answer
