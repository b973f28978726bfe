"""What one might change in a job on Ascend, each alone, for the model of ``ascend_model``."""

from __future__ import annotations

from dataclasses import replace

from mindcv_mnasnet.networks.ascend_model import Choice, depthwise_floor, host_rate

# Kernels of a training step of mnasnet_075 in MindSpore's own dry run: counted, not guessed (docs/howto/dry_run.md).
KERNELS = {
    "O0": 687,
    "O1": 664,
    "O1, rank of 8": 779,
    "MindCV, O1, rank of 8": 1131,
    "ours before, O1, rank of 8": 1820,
}
# A pack of short side 256 against full-size files, this project's pipeline on 2 CPU cores (docs/speed.md).
SCALED_PACK_GAIN = 1.9


def variants(base: Choice) -> dict[str, Choice]:
    """What one might change, each alone."""
    found = {
        "as chosen": base,
        "slowest depthwise": replace(base, depthwise_share=depthwise_floor()),
        "fp16, fp32 batch norm (amp O2)": replace(base, precision="fp16_fp32bn"),
        "fp16 throughout (amp O3)": replace(base, precision="fp16"),
        "bf16 throughout (amp O3)": replace(base, precision="bf16" if base.device != "910" else "fp16"),
        "twice the batch": replace(base, batch=2 * base.batch),
        "sinking off": replace(base, sinks=False),
        "4 devices": replace(base, devices=4),
        "1 device": replace(base, devices=1),
        "host at 16,600 images/s": replace(base, host_rate=16_600),
        "host at twice its rate": replace(base, host_rate=2 * (base.host_rate or host_rate(base.device))),
        "host without limit": replace(base, host_rate=1e12),
        "pack of short side 256": replace(
            base, host_rate=SCALED_PACK_GAIN * (base.host_rate or host_rate(base.device))
        ),
    }
    if base.device == "910":
        del found["bf16 throughout (amp O3)"]
    return found


def launches(base: Choice) -> dict[str, Choice]:
    """The same job at O0 and O1, where the host launches every kernel: with the kernels that dry runs counted."""
    return {name: replace(base, kernels=count) for name, count in KERNELS.items()}
