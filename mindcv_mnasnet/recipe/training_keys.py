"""Keys of a recipe on how weights are trained: optimizer, averages, precision, learning rate."""

from __future__ import annotations

from dataclasses import dataclass

from mindcv_mnasnet.recipe.rule import Use, key


@dataclass(frozen=True)
class OptimizerKeys:
    """optimizer, averages and precision"""

    opt: str = key(
        "rmsprop",
        "optimizer",
        choices=("sgd", "momentum", "rmsprop", "adamw", "lamb"),
        unbuilt=("adam", "lion", "adagrad", "nadam"),
        use=Use.STATE,
    )
    momentum: float = key(0.9, "momentum of sgd and rmsprop", within="[0, 1)")
    use_nesterov: bool = key(False, "Nesterov's momentum, with sgd")
    rmsprop_decay: float = key(0.9, "decay of rmsprop's mean square", within="[0, 1)")
    betas: tuple[float, ...] = key((0.9, 0.999), "decays of adamw and lamb", within="[0, 1)", length=2)
    eps: float | None = key(None, "epsilon; None is the optimizer's own", within="(0, 1]")
    weight_decay: float = key(1e-6, "weight decay", within="[0, 1)")
    weight_decay_filter: str = key(
        "disable",
        "what is not decayed: disable nothing, norm (MindCV's auto) the batch norms, norm_and_bias biases too",
        choices=("disable", "auto", "norm_and_bias", "norm"),
    )
    layer_decay: float | None = key(None, "factor of the learning rate per stage towards the stem", within="(0, 1]")
    clip_grad: bool = key(False, "clip the global norm of the gradients")
    clip_value: float = key(15.0, "that norm", within="(0, inf)")
    gradient_accumulation_steps: int = key(1, "batches per optimizer step", within="[1, inf)", use=Use.BATCH)
    ema: bool = key(False, "average the weights, and validate the averages", use=Use.STATE)
    ema_decay: float = key(0.9999, "decay of that average per step", within="[0, 1)")
    ema_ramp: bool = key(False, "decay rises as min(ema_decay, (1 + n) / (10 + n))")
    quantize: bool = key(
        False,
        "train, and validate, as a network of 8-bit integers computes (fake quantization)",
        use=Use.COMMAND | Use.MINDSPORE | Use.STATE,
    )
    quant_weight_bits: int = key(
        7,
        "bits of weights that quantize simulates: 7 as ONNX files have, or 8",
        within="[7, 8]",
        use=Use.COMMAND | Use.MINDSPORE,
    )
    quant_delay_epochs: float = key(1.0, "epochs before activations are quantized, not observed", within="[0, inf)")
    bn_freeze_epochs: float = key(2.0, "epochs before quantize fixes batch-norm statistics", within="[0, inf)")
    loss: str = key("CE", "cross entropy, or binary cross entropy", choices=("CE", "BCE"))
    label_smoothing: float = key(0.0, "label smoothing", within="[0, 1)")
    aux_factor: float = key(0.0, "MindCV's", fixed="the networks have no auxiliary outputs")
    reduction: str = key("mean", "MindCV's", fixed="the loss is a mean over images")
    amp_level: str = key("O0", "mixed precision in training", choices=("O0", "O1", "O2", "O3", "auto"))
    amp_dtype: str = key(
        "float16", "its narrow type", choices=("float16", "bfloat16"), use=Use.VALIDATION | Use.MINDSPORE
    )
    val_amp_level: str = key(
        "O0",
        "mixed precision in validation",
        choices=("O0", "O1", "O2", "O3", "auto"),
        use=Use.VALIDATION | Use.MINDSPORE,
    )
    amp_cast_list: str | None = key(None, "MindCV's", fixed="amp_level decides what is cast")
    loss_scale_type: str = key("fixed", "loss scaling", choices=("fixed", "dynamic", "auto"))
    loss_scale: float = key(1.0, "loss scale, or its first value", within="[1, inf)")
    drop_overflow_update: bool = key(False, "skip steps whose gradients overflow, with a fixed scale too")


@dataclass(frozen=True)
class ScheduleKeys:
    """learning rate"""

    scheduler: str = key(
        "cosine_decay",
        "schedule",
        choices=(
            "constant",
            "cosine_decay",
            "exponential_decay",
            "step_decay",
            "multi_step_decay",
            "polynomial_decay",
        ),
        unbuilt=("one_cycle", "cyclic"),
    )
    lr: float = key(0.001, "peak learning rate", within="(0, inf)")
    lr_per_256: float | None = key(None, "peak per 256 images of global batch, in place of lr", within="(0, inf)")
    min_lr: float = key(1e-6, "where cosine and polynomial decay end", within="[0, inf)")
    warmup_epochs: float = key(3.0, "epochs of linear warm-up", within="[0, inf)")
    warmup_factor: float = key(0.0, "share of the peak at which it starts", within="[0, 1]")
    decay_from: str = key("warmup", "where decay counts its epochs from", choices=("start", "warmup"))
    decay_epochs: float = key(100.0, "epochs of cosine and polynomial decay, or of one step", within="(0, inf)")
    decay_rate: float = key(0.9, "factor of exponential and step decay", within="(0, 1]")
    decay_every_epochs: float | None = key(None, "epochs per factor of exponential decay; None is 1", within="(0, inf)")
    decay_staircase: bool = key(False, "exponential decay by steps, not smooth")
    multi_step_decay_milestones: tuple[int, ...] = key(
        (30, 60, 90), "epochs at which multi-step decay steps", within="[1, inf)", rising=True
    )
    poly_power: float = key(1.0, "power of polynomial decay", within="(0, inf)")
    lr_epoch_stair: bool = key(False, "hold the rate constant within an epoch, warm-up included")
    num_cycles: int = key(1, "cycles of cosine decay", within="[1, inf)")
    cycle_decay: float = key(1.0, "factor of the peak from one cycle to the next", within="(0, 1]")
