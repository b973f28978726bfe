"""Train a small network on the built-in digits for two epochs, then name three of the held-out images."""

import sys
from pathlib import Path

import mindcv_mnasnet as mm

runs = Path(sys.argv[1] if len(sys.argv) > 1 else "runs")
recipe = Path(__file__).resolve().parents[1] / "configs/digits/mnasnet_small_digits.yaml"
keys = {"epoch_size": 2, "warmup_epochs": 0, "data_dir": str(runs / "digits"), "ckpt_save_dir": str(runs)}
summary = mm.train(recipe, run_name="example", **keys)
print(f"{summary['images_per_second']:.0f} images/s")

classifier = mm.open_classifier(str(runs / "example"))
images = sorted((runs / "digits" / "val").rglob("*.png"))[::150]
for answer in classifier.predict(images, top=2):
    print(answer.path, answer.titles, [round(share, 3) for share in answer.probabilities])
