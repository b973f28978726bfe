"""Every key of a recipe: its type, default, bounds, meaning and use, written once.

The annotations and the rule (:mod:`mindcv_mnasnet.recipe.rule`) of each field drive the YAML reader, the command line,
the checks, the error sentences and the help text. Names and defaults are MindCV 0.3's where MindCV has the key; its
options that have no counterpart here are accepted with their neutral value only (``fixed``), so that its recipe files
load as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mindcv_mnasnet.recipe.detection_keys import DetectionKeys
from mindcv_mnasnet.recipe.rule import Use, key
from mindcv_mnasnet.recipe.training_keys import OptimizerKeys, ScheduleKeys


@dataclass(frozen=True)
class JobKeys:
    """run, device and start"""

    mode: int = key(0, "MindSpore mode", fixed="only graph mode, 0, exists here")
    distribute: bool | None = key(
        None, "data parallel over msrun's processes; None is whenever msrun started them", use=Use.VALIDATION
    )
    device_target: str = key(
        "auto", "device; auto takes an NPU if there is one", choices=("auto", "CPU", "Ascend"), use=Use.VALIDATION
    )
    seed: int = key(42, "seed of every random choice", within="[0, 2147483647]")
    deterministic: bool = key(False, "bit-reproducible operators", use=Use.VALIDATION)
    kernels: bool = key(
        True, "our own operators on CPUs: faster, built on first use", use=Use.PLACE | Use.COMMAND | Use.MINDSPORE
    )
    compile_cache: bool = key(True, "keep compiled graphs for the next run (CPU, one process)", use=Use.PLACE)
    jit_level: str | None = key(
        None,
        "compilation level of graph mode",
        choices=("O0", "O1", "O2"),
        use=Use.PLACE | Use.VALIDATION | Use.MINDSPORE,
    )
    run_name: str | None = key(
        None,
        "folder of this run below ckpt_save_dir",
        pattern=r"(?!\.+$)[^/\\\0-\37]+",
        form="a folder name",
        use=Use.PLACE,
    )
    resume: str | None = key(None, "run folder to continue", pattern=".+", use=Use.PLACE)
    allow_changes: tuple[str, ...] = key((), "keys that a resumed run may change", use=Use.PLACE)
    init_from: str | None = key(None, "checkpoint to start from (fine-tuning)", pattern=".+", use=Use.PLACE)
    new_head: bool = key(
        False, "begin with a new classifier (predictors) where the checkpoint's would fit, too", use=Use.PLACE
    )
    freeze: int | str | None = key(
        None, "'backbone' or stages to keep fixed", within="[0, 7]", choices=("backbone",), use=Use.STATE
    )
    epoch_size: int = key(90, "epochs to train", within="[1, inf)")
    dataset_sink_mode: bool = key(True, "feed the device whole epochs, where the device can")
    sink_size: int | None = key(
        None, "most steps per sunk call; None is log_interval", within="[1, inf)", use=Use.PLACE
    )
    val_while_train: bool = key(False, "validate during training")
    val_interval: int = key(1, "epochs between validations", within="[1, inf)")
    log_interval: int = key(100, "steps between log lines", within="[1, inf)")
    tensorboard: bool = key(False, "write TensorBoard events too")
    ckpt_path: str = key(
        "", "checkpoint to validate; in training the same as init_from", use=Use.PLACE | Use.COMMAND | Use.PUBLISHED
    )
    ckpt_save_dir: str = key("./runs", "folder in which run folders are made", pattern=".+", use=Use.PLACE)
    ckpt_save_interval: int = key(1, "epochs between checkpoints", within="[1, inf)")
    ckpt_save_steps: int | None = key(None, "steps between checkpoints inside an epoch", within="[1, inf)")
    ckpt_save_policy: str = key("latest_k", "which checkpoints are kept", choices=("latest_k", "top_k"))
    keep_checkpoint_max: int = key(10, "checkpoints kept", within="[1, inf)")
    resume_opt: bool = key(False, "MindCV's resume", fixed="continue a run with --resume RUN")


@dataclass(frozen=True)
class DataKeys:
    """data and augmentation"""

    dataset: str = key(
        "imagenet", "name of the data set; 'digits' is built in, all others are read from data_dir", use=Use.VALIDATION
    )
    data_dir: str = key("./", "folder of the data set", pattern=".+", use=Use.PLACE | Use.VALIDATION)
    train_split: str = key("train", "sub-folder of the training images", pattern=".+", use=Use.VALIDATION)
    val_split: str = key("val", "sub-folder of the validation images", pattern=".+", use=Use.VALIDATION)
    val_fraction: float | None = key(
        None, "share of a folder without splits kept for validation", within="(0, 1)", use=Use.VALIDATION
    )
    split_seed: int = key(0, "seed of that split", within="[0, 2147483647]", use=Use.VALIDATION)
    split_by: str = key(
        "position",
        "how it is drawn; default of new jobs: by name",
        choices=("name", "position"),
        use=Use.PLACE | Use.COMMAND,
    )
    val_labels: str | None = key(
        None, "label file of a flat validation folder", pattern=".+", use=Use.PLACE | Use.VALIDATION
    )
    dataset_download: bool = key(False, "MindCV's download", fixed="nothing is downloaded here; give --data_dir")
    num_parallel_workers: int = key(
        8, "workers of the input pipeline, at most the cores", within="[1, inf)", use=Use.PLACE | Use.VALIDATION
    )
    on_bad_image: str = key(
        "error", "what a broken image does in training", choices=("error", "skip"), use=Use.VALIDATION
    )
    shuffle: bool = key(True, "a new order of the training images each epoch")
    num_samples: int | None = key(None, "use only so many training images", within="[1, inf)", use=Use.STATE)
    batch_size: int = key(128, "images per device and step", within="[1, inf)", use=Use.VALIDATION | Use.BATCH)
    val_batch_size: int | None = key(
        None, "images per device in validation; None is batch_size", within="[1, inf)", use=Use.VALIDATION
    )
    drop_remainder: bool = key(True, "leave an incomplete last batch out; if not, it is filled from the epoch's start")
    image_resize: int = key(
        224,
        "side of the network's input, pixels",
        within="[16, 1024]",
        use=Use.INPUT | Use.PUBLISHED,
        sets="image_size",
    )
    scale: tuple[float, ...] = key((0.08, 1.0), "area of a training crop", within="(0, 1]", length=2, rising=True)
    ratio: tuple[float, ...] = key((0.75, 1.333), "its aspect ratio", within="(0, inf)", length=2, rising=True)
    hflip: float = key(0.5, "probability of a horizontal flip", within="[0, 1]")
    vflip: float = key(0.0, "probability of a vertical flip", within="[0, 1]")
    color_jitter: float = key(0.4, "jitter of brightness, contrast, saturation; None is 0", within="[0, 1]", none=0.0)
    interpolation: str = key(
        "bilinear",
        "resampling: OpenCV's, as in MindCV; pilcubic is Pillow's bicubic, which smooths",
        choices=("bilinear", "bicubic", "nearest", "area", "pilcubic"),
        use=Use.VALIDATION,
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
    mean: tuple[float, ...] = key(
        (123.675, 116.28, 103.53), "channel means of pixels 0..255", within="[0, 255]", use=Use.INPUT
    )
    std: tuple[float, ...] = key(
        (58.395, 57.12, 57.375), "channel deviations of pixels 0..255", within="[1, 255]", use=Use.INPUT
    )
    crop_pct: float = key(0.875, "image_resize / short side in validation", within="(0, 1]", use=Use.INPUT)
    val_resize: int | None = key(
        None, "short side in validation; None is image_resize / crop_pct", within="[16, 4096]", use=Use.INPUT
    )
    val_interpolation: str | None = key(
        None,
        "resampling in validation; None is interpolation (with tf_square, bilinear is tf_bilinear)",
        choices=("bilinear", "bicubic", "nearest", "area", "pilcubic", "pilbilinear", "tf_bilinear"),
        use=Use.INPUT,
    )
    eval_crop: str = key(
        "center",
        "center cuts a half pixel away, center_round rounds it to even (torchvision, timm), tf_square is the authors'",
        choices=("center", "center_round", "tf_square"),
        use=Use.INPUT,
    )
    mixup: float = key(0.0, "alpha of mixup, 0 is off", within="[0, inf)")
    cutmix: float = key(0.0, "alpha of cutmix, 0 is off", within="[0, inf)")
    cutmix_prob: float = key(1.0, "probability that a batch is mixed", within="[0, 1]")
    aug_splits: int = key(0, "MindCV's", fixed="augmentation splits do not exist here")
    aug_repeats: int = key(0, "MindCV's", fixed="repeated augmentation does not exist here")
    eval_shuffle: bool = key(False, "MindCV's", fixed="the order of validation changes nothing")

    def short_side(self) -> int:
        """Pixels that an image's short side is resized to for validation, rounded down as MindCV and timm do."""
        return self.val_resize or int(self.image_resize / self.crop_pct)

    def resampling(self) -> str:
        """The word for how images are resized in evaluation; each word is one algorithm."""
        chosen = self.val_interpolation or self.interpolation
        return "tf_bilinear" if (self.eval_crop, chosen) == ("tf_square", "bilinear") else chosen


@dataclass(frozen=True)
class NetworkKeys:
    """network (None is the model's own)"""

    model: str = key("mnasnet_100", "name of the network", pattern=".+", use=Use.NETWORK | Use.PUBLISHED)
    num_classes: int | None = key(None, "classes; None is as the data has", within="[1, inf)", use=Use.NETWORK)
    in_channels: int = key(3, "channels of the input: 3 is RGB, 1 gray", within="[1, 3]", use=Use.NETWORK)
    width_mult: float | None = key(None, "width multiplier", within="(0, inf)", use=Use.NETWORK | Use.PUBLISHED)
    blocks: tuple[str, ...] | None = key(None, "block strings in place of the model's", use=Use.NETWORK)
    stem: int | None = key(None, "width of the stem before scaling", within="[1, inf)", use=Use.NETWORK)
    stem_stride: int | None = key(None, "stride of the stem; 1 suits small images", within="[1, 2]", use=Use.NETWORK)
    head: int | None = key(None, "width of the head", within="[1, inf)", use=Use.NETWORK)
    divisor: int | None = key(None, "widths are rounded to multiples of this", within="[1, inf)", use=Use.NETWORK)
    min_width: int | None = key(None, "smallest width", within="[1, inf)", use=Use.NETWORK)
    padding: str | None = key(
        None, "padding at stride 2; same is TensorFlow's", choices=("symmetric", "same"), use=Use.CONVENTION
    )
    bn_eps: float | None = key(None, "batch norm: epsilon", within="(0, 1)", use=Use.CONVENTION)
    bn_momentum: float | None = key(None, "batch norm: share of the old statistics", within="[0, 1)")
    residual_rule: str | None = key(
        None, "which input width decides on a residual", choices=("actual", "declared"), use=Use.CONVENTION
    )
    drop_rate: float | None = key(None, "dropout before the classifier", within="[0, 1)", sets="dropout")
    drop_path_rate: float | None = key(None, "drop-connect of the last block", within="[0, 1)", sets="drop_connect")
    pretrained: bool = key(
        False, "start from, or validate, the weights published under the model's name", use=Use.COMMAND | Use.PUBLISHED
    )


SECTIONS: tuple[type, ...] = (JobKeys, DataKeys, NetworkKeys, OptimizerKeys, ScheduleKeys, DetectionKeys)


@dataclass(frozen=True)
class AllKeys(DetectionKeys, ScheduleKeys, OptimizerKeys, NetworkKeys, DataKeys, JobKeys):
    """One attribute per key, and which of them were set by hand."""

    given: frozenset[str] = field(default=frozenset(), compare=False, repr=False)
