"""What ten steps have to come to: the network, its batch, and the losses of the CPU.

Found on a CPU: x86-64, MindSpore 2.10, float32, our operators; MindSpore's own come within 0.3 % of each.
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
    "lr": 4e-6,  # small and on one batch: larger steps multiply every rounding
    "warmup_epochs": 0.0,
    "jit_level": None,
}

LOSSES = (8.146927, 7.854972, 7.433581, 6.958321, 6.465968, 5.960095, 5.462516, 4.998502, 4.600642, 4.239446)

# Relative. float32 allows for HF32, in which 910B convolves by default; the others for 8 and 11 bits.
TOLERANCES = {"float32": 0.02, "float16": 0.05, "bfloat16": 0.1}
