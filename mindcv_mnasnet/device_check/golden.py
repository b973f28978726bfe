"""What ten steps have to come to: the network, its batches, and the losses of the CPU.

The losses are what ``mnasnet check-device`` found on a CPU: x86-64, MindSpore 2.10, float32, our operators.
"""

from __future__ import annotations

from typing import Any

STEPS, BATCH, SIZE, CLASSES = 10, 16, 64, 10

KEYS: dict[str, Any] = {
    "model": "mnasnet_075",
    "num_classes": CLASSES,
    "image_resize": SIZE,
    "batch_size": BATCH,
    "drop_rate": 0.0,
    "opt": "rmsprop",
    "eps": 0.001,
    "weight_decay": 1e-5,
    "label_smoothing": 0.1,
    "lr": 0.002,
    "warmup_epochs": 0.0,
    "jit_level": None,
}

LOSSES = (8.14693, 5.67276, 4.60085, 5.81518, 6.25296, 6.06040, 5.66679, 5.93835, 4.54942, 4.64032)

# Relative. float32 allows for HF32, in which 910B convolves by default; the others for 8 and 11 bits.
TOLERANCES = {"float32": 0.01, "float16": 0.03, "bfloat16": 0.06}
