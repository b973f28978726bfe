"""Every key of a recipe: its type, default, bounds and meaning, written once.

The annotations and the :class:`Rule` of each field drive the YAML reader, the command line, the checks, the error
sentences and the help text. Names and defaults are MindCV 0.3's where MindCV has the key; its options that have no
counterpart here are accepted with their neutral value only (``fixed``), so that its recipe files load as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Rule:
    """What a key allows beyond its type."""

    help: str
    within: str | None = None  # an interval such as "(0, 1]"; for a list, of every item
    choices: tuple[str, ...] = ()
    unbuilt: tuple[str, ...] = ()  # MindCV's choices that do not exist here
    pattern: str | None = None  # a regular expression that a text has to match in full
    form: str = "text that is not empty"  # the pattern in words
    length: int | None = None  # number of items of a list
    rising: bool = False  # items of a list have to increase
    fixed: str | None = None  # why only the default is possible
    none: Any = None  # what "None" stands for, where that is not the default
    place: bool = False  # where, by what means and under what name a job runs, not what it computes


def key(default: Any, help: str, **rule: Any) -> Any:
    """A recipe key: a dataclass field that carries its rule."""
    return field(default=default, metadata={"rule": Rule(help, **rule)})


@dataclass(frozen=True)
class JobKeys:
    """run, device and start"""

    mode: int = key(0, "MindSpore mode", fixed="only graph mode, 0, exists here")
    distribute: bool | None = key(None, "data parallel over msrun's processes; None is whenever msrun started them")
    device_target: str = key("auto", "device; auto takes an NPU if there is one", choices=("auto", "CPU", "Ascend"))
    seed: int = key(42, "seed of every random choice", within="[0, 2147483647]")
    deterministic: bool = key(False, "bit-reproducible operators")
    kernels: bool = key(True, "our own operators on CPUs: faster, built on first use", place=True)
    compile_cache: bool = key(True, "keep compiled graphs for the next run (CPU, one process)", place=True)
    jit_level: str | None = key(None, "compilation level of graph mode", choices=("O0", "O1", "O2"), place=True)
    run_name: str | None = key(
        None, "folder of this run below ckpt_save_dir", pattern=r"(?!\.+$)[^/\\]+", form="a folder name", place=True
    )
    resume: str | None = key(None, "run folder to continue", pattern=".+", place=True)
    allow_changes: tuple[str, ...] = key((), "keys that a resumed run may change", place=True)
    init_from: str | None = key(None, "checkpoint to start from (fine-tuning)", pattern=".+", place=True)
    freeze: int | str | None = key(None, "'backbone' or stages to keep fixed", within="[0, 7]", choices=("backbone",))
    epoch_size: int = key(90, "epochs to train", within="[1, inf)")
    dataset_sink_mode: bool = key(True, "feed the device whole epochs, where the device can")
    sink_size: int | None = key(None, "most steps per sunk call; None is log_interval", within="[1, inf)", place=True)
    val_while_train: bool = key(False, "validate during training")
    val_interval: int = key(1, "epochs between validations", within="[1, inf)")
    log_interval: int = key(100, "steps between log lines", within="[1, inf)")
    tensorboard: bool = key(False, "write TensorBoard events too")
    ckpt_path: str = key("", "checkpoint to validate; in training the same as init_from", place=True)
    ckpt_save_dir: str = key("./runs", "folder in which run folders are made", pattern=".+", place=True)
    ckpt_save_interval: int = key(1, "epochs between checkpoints", within="[1, inf)")
    ckpt_save_steps: int | None = key(None, "steps between checkpoints inside an epoch", within="[1, inf)")
    ckpt_save_policy: str = key("latest_k", "which checkpoints are kept", choices=("latest_k", "top_k"))
    keep_checkpoint_max: int = key(10, "checkpoints kept", within="[1, inf)")
    resume_opt: bool = key(False, "MindCV's resume", fixed="continue a run with --resume RUN")


@dataclass(frozen=True)
class DataKeys:
    """data and augmentation"""

    dataset: str = key("imagenet", "name of the data set; 'digits' is built in, all others are read from data_dir")
    data_dir: str = key("./", "folder of the data set", pattern=".+", place=True)
    train_split: str = key("train", "sub-folder of the training images", pattern=".+")
    val_split: str = key("val", "sub-folder of the validation images", pattern=".+")
    val_fraction: float | None = key(None, "share of a folder without splits kept for validation", within="(0, 1)")
    split_seed: int = key(0, "seed of that split", within="[0, 2147483647]")
    split_by: str = key(
        "position", "how it is drawn; new jobs draw by name unless told", choices=("name", "position"), place=True
    )
    val_labels: str | None = key(None, "label file of a flat validation folder", pattern=".+", place=True)
    dataset_download: bool = key(False, "MindCV's download", fixed="nothing is downloaded here; give --data_dir")
    num_parallel_workers: int = key(
        8, "workers of the input pipeline, at most the cores", within="[1, inf)", place=True
    )
    on_bad_image: str = key("error", "what a broken image does in training", choices=("error", "skip"))
    shuffle: bool = key(True, "a new order of the training images each epoch")
    num_samples: int | None = key(None, "use only so many training images", within="[1, inf)")
    batch_size: int = key(128, "images per device and step", within="[1, inf)")
    val_batch_size: int | None = key(None, "images per device in validation; None is batch_size", within="[1, inf)")
    drop_remainder: bool = key(True, "leave an incomplete last batch out; if not, it is filled from the epoch's start")
    image_resize: int = key(224, "side of the network's input, pixels", within="[16, 1024]")
    scale: tuple[float, ...] = key((0.08, 1.0), "area of a training crop", within="(0, 1]", length=2, rising=True)
    ratio: tuple[float, ...] = key((0.75, 1.333), "its aspect ratio", within="(0, inf)", length=2, rising=True)
    hflip: float = key(0.5, "probability of a horizontal flip", within="[0, 1]")
    vflip: float = key(0.0, "probability of a vertical flip", within="[0, 1]")
    color_jitter: float = key(0.4, "jitter of brightness, contrast, saturation; None is 0", within="[0, 1]", none=0.0)
    interpolation: str = key(
        "bilinear",
        "resampling: OpenCV's, as in MindCV; pilcubic is Pillow's bicubic, which smooths",
        choices=("bilinear", "bicubic", "nearest", "area", "pilcubic"),
    )
    auto_augment: str | None = key(
        None,
        "automatic augmentation",
        pattern=r"(randaug|autoaugr?|trivialaugwide|augmix)(-[a-z]+[0-9.]+)*",
        form="randaug, autoaug or trivialaugwide with settings such as -m9-n2",
    )
    re_prob: float = key(0.0, "probability of random erasing", within="[0, 1]")
    re_scale: tuple[float, ...] = key((0.02, 0.33), "area erased", within="(0, 1]", length=2, rising=True)
    re_ratio: tuple[float, ...] = key((0.3, 3.3), "its aspect ratio", within="(0, inf)", length=2, rising=True)
    re_value: float = key(0.0, "normalized value put there, 0 is the mean", unbuilt=("random",))
    re_max_attempts: int = key(10, "tries to find a box to erase", within="[1, inf)")
    mean: tuple[float, ...] = key((123.675, 116.28, 103.53), "channel means of pixels 0..255", within="[0, 255]")
    std: tuple[float, ...] = key((58.395, 57.12, 57.375), "channel deviations of pixels 0..255", within="[1, 255]")
    crop_pct: float = key(0.875, "image_resize / short side in validation", within="(0, 1]")
    val_resize: int | None = key(None, "short side in validation; None is image_resize / crop_pct", within="[16, 4096]")
    val_interpolation: str | None = key(
        None,
        "resampling in validation; None is interpolation (with tf_square, bilinear is tf_bilinear)",
        choices=("bilinear", "bicubic", "nearest", "area", "pilcubic", "pilbilinear", "tf_bilinear"),
    )
    eval_crop: str = key(
        "center",
        "center cuts a half pixel away, center_round rounds it to even (torchvision, timm), tf_square is the authors'",
        choices=("center", "center_round", "tf_square"),
    )
    mixup: float = key(0.0, "alpha of mixup, 0 is off", within="[0, inf)")
    cutmix: float = key(0.0, "alpha of cutmix, 0 is off", within="[0, inf)")
    cutmix_prob: float = key(1.0, "probability that a batch is mixed", within="[0, 1]")
    aug_splits: int = key(0, "MindCV's", fixed="augmentation splits do not exist here")
    aug_repeats: int = key(0, "MindCV's", fixed="repeated augmentation does not exist here")
    eval_shuffle: bool = key(False, "MindCV's", fixed="the order of validation changes nothing")


@dataclass(frozen=True)
class NetworkKeys:
    """network (None is the model's own)"""

    model: str = key("mnasnet_100", "name of the network", pattern=".+")
    num_classes: int | None = key(None, "classes; None is as the data has", within="[1, inf)")
    in_channels: int = key(3, "channels of the input: 3 is RGB, 1 gray", within="[1, 3]")
    width_mult: float | None = key(None, "width multiplier", within="(0, inf)")
    blocks: tuple[str, ...] | None = key(None, "block strings in place of the model's")
    stem: int | None = key(None, "width of the stem before scaling", within="[1, inf)")
    stem_stride: int | None = key(None, "stride of the stem; 1 suits small images", within="[1, 2]")
    head: int | None = key(None, "width of the head", within="[1, inf)")
    divisor: int | None = key(None, "widths are rounded to multiples of this", within="[1, inf)")
    min_width: int | None = key(None, "smallest width", within="[1, inf)")
    padding: str | None = key(None, "padding at stride 2; same is TensorFlow's", choices=("symmetric", "same"))
    bn_eps: float | None = key(None, "batch norm: epsilon", within="(0, 1)")
    bn_momentum: float | None = key(None, "batch norm: share of the old statistics", within="[0, 1)")
    residual_rule: str | None = key(None, "which input width decides on a residual", choices=("actual", "declared"))
    drop_rate: float | None = key(None, "dropout before the classifier", within="[0, 1)")
    drop_path_rate: float | None = key(None, "drop-connect of the last block", within="[0, 1)")
    pretrained: bool = key(False, "start from, or validate, the weights published under the model's name")


@dataclass(frozen=True)
class OptimizerKeys:
    """optimizer, averages and precision"""

    opt: str = key(
        "rmsprop",
        "optimizer",
        choices=("sgd", "momentum", "rmsprop", "adamw", "lamb"),
        unbuilt=("adam", "lion", "adagrad", "nadam"),
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
    gradient_accumulation_steps: int = key(1, "batches per optimizer step", within="[1, inf)")
    ema: bool = key(False, "average the weights, and validate the averages")
    ema_decay: float = key(0.9999, "decay of that average per step", within="[0, 1)")
    ema_ramp: bool = key(False, "decay rises as min(ema_decay, (1 + n) / (10 + n))")
    quantize: bool = key(False, "train, and validate, as a network of 8-bit integers computes (fake quantization)")
    quant_weight_bits: int = key(
        7, "bits of weights that quantize simulates: 7 as ONNX files have, or 8", within="[7, 8]"
    )
    quant_delay_epochs: float = key(1.0, "epochs before activations are quantized, not observed", within="[0, inf)")
    bn_freeze_epochs: float = key(2.0, "epochs before quantize fixes batch-norm statistics", within="[0, inf)")
    loss: str = key("CE", "cross entropy, or binary cross entropy", choices=("CE", "BCE"))
    label_smoothing: float = key(0.0, "label smoothing", within="[0, 1)")
    aux_factor: float = key(0.0, "MindCV's", fixed="the networks have no auxiliary outputs")
    reduction: str = key("mean", "MindCV's", fixed="the loss is a mean over images")
    amp_level: str = key("O0", "mixed precision in training", choices=("O0", "O1", "O2", "O3", "auto"))
    amp_dtype: str = key("float16", "its narrow type", choices=("float16", "bfloat16"))
    val_amp_level: str = key("O0", "mixed precision in validation", choices=("O0", "O1", "O2", "O3", "auto"))
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


SECTIONS: tuple[type, ...] = (JobKeys, DataKeys, NetworkKeys, OptimizerKeys, ScheduleKeys)


@dataclass(frozen=True)
class AllKeys(ScheduleKeys, OptimizerKeys, NetworkKeys, DataKeys, JobKeys):
    """One attribute per key, and which of them were set by hand."""

    given: frozenset[str] = field(default=frozenset(), compare=False, repr=False)
