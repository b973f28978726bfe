"""The recipe keys that say how a network is evaluated."""

from __future__ import annotations

#: How an image becomes the network's input.
EVALUATION_KEYS = ("image_resize", "crop_pct", "val_resize", "val_interpolation", "eval_crop", "mean", "std")
#: What a source's code fixes, and a checkpoint keeps, unless told otherwise.
CONVENTION_KEYS = ("padding", "bn_eps", "residual_rule")
#: Keys that count in validation where a recipe file is given; all others are the checkpoint's own business.
FROM_FILE = (
    *("dataset", "data_dir", "train_split", "val_split", "val_fraction", "split_seed", "val_labels", "on_bad_image"),
    *("num_parallel_workers", "batch_size", "val_batch_size", "interpolation", *EVALUATION_KEYS),
    *("device_target", "distribute", "jit_level", "deterministic", "val_amp_level", "amp_dtype"),
)
#: Those that say what the network is.
NETWORK_KEYS = {
    *("model", "blocks", "num_classes", "in_channels", "width_mult"),
    *("stem", "stem_stride", "head", "divisor", "min_width"),
}
#: Keys that validation takes, on the command line or in a call.
VALIDATION_KEYS = frozenset(
    {*FROM_FILE, *NETWORK_KEYS, *CONVENTION_KEYS, "quantize", "quant_weight_bits", "kernels", "split_by"}
    | {"ckpt_path", "pretrained"}
)
