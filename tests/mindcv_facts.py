"""MindCV 0.3's eight MnasNet recipes as facts: keys and values, numbers like 1e-5 as the text that YAML 1.1 reads."""

from typing import Any

_SHARED: dict[str, Any] = {
    "mode": 0, "distribute": True, "num_parallel_workers": 8, "dataset": "imagenet", "data_dir": "/path/to/imagenet",
    "shuffle": True, "dataset_download": False, "drop_remainder": True, "image_resize": 224, "scale": [0.08, 1.0],
    "ratio": [0.75, 1.333], "hflip": 0.5, "interpolation": "bilinear", "crop_pct": 0.875, "num_classes": 1000,
    "pretrained": False, "ckpt_path": "", "keep_checkpoint_max": 10, "ckpt_save_dir": "./ckpt",
    "dataset_sink_mode": True, "amp_level": "O0", "loss": "CE", "label_smoothing": 0.1, "scheduler": "cosine_decay",
    "min_lr": "1e-10", "warmup_epochs": 5, "opt": "rmsprop", "momentum": 0.9, "weight_decay": "1e-5",
    "loss_scale": 256, "use_nesterov": False, "eps": "1e-3",
}  # fmt: skip
_HALF = {"val_while_train": True, "interpolation": "bicubic", "amp_level": "O3"}
MINDCV = {
    name: {
        **_SHARED,
        "model": model,
        "batch_size": batch,
        "epoch_size": epochs,
        "decay_epochs": epochs - 5,
        "lr": lr,
    }
    | extra
    for name, model, batch, epochs, lr, extra in (
        ("mnasnet_0.5_ascend.yaml", "mnasnet_050", 512, 400, 0.1, {**_HALF, "min_lr": "5e-6"}),
        ("mnasnet_0.75_ascend.yaml", "mnasnet_075", 256, 350, 0.016, {}),
        ("mnasnet_0.75_gpu.yaml", "mnasnet_075", 128, 350, 0.012, {}),
        ("mnasnet_1.0_ascend.yaml", "mnasnet_100", 256, 450, 0.016, {}),
        ("mnasnet_1.0_gpu.yaml", "mnasnet_100", 128, 450, 0.012, {}),
        ("mnasnet_1.3_ascend.yaml", "mnasnet_130", 128, 400, 0.032, _HALF),
        ("mnasnet_1.4_ascend.yaml", "mnasnet_140", 256, 400, 0.016, {}),
        ("mnasnet_1.4_gpu.yaml", "mnasnet_140", 64, 400, 0.008, {}),
    )
}
