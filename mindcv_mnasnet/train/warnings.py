"""What a recipe asks for that this machine, or so short a training, does not give: sentences for the log."""

from __future__ import annotations

from mindcv_mnasnet.devices.runtime import Runtime
from mindcv_mnasnet.kernels.build import kernels
from mindcv_mnasnet.recipe.plan import Plan
from mindcv_mnasnet.recipe.recipe import Recipe


def warnings(recipe: Recipe, plan: Plan, machine: Runtime) -> list[str]:
    """The sentences for a job."""
    found = []
    if machine.device == "CPU" and recipe.amp_level != "O0":
        found.append(f"amp_level {recipe.amp_level} needs an NPU; the CPU computes in float32")
    if recipe.kernels and not recipe.quantize and (note := kernels().note):
        found.append(note)
    share = recipe.ema_decay**plan.total_steps
    if recipe.ema and not recipe.ema_ramp and share >= 0.1:  # averages will still hold much of the first weights
        found.append(
            f"ema_decay {recipe.ema_decay:g} is long for {plan.total_steps} steps: {100 * share:.0f} % of the averaged "
            "weights will be those of the start; --ema_ramp True averages over fewer steps at first"
        )
    return found
