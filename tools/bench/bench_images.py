"""Make an image folder for tools/bench/benchmark.py: bench_images.py FOLDER COUNT RESULT.

Files are like ImageNet's in what reading them costs: 500 x 375 and about 100 KB, waves under noise. RESULT is written
when all are there.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT, CLASSES = 500, 375, 10


def make_images(folder: Path, count: int) -> None:
    """Write ``count`` JPEG files as ``folder/train/<class>/<number>.jpg``, the same ones every time."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    rng = np.random.default_rng(0)
    for number in range(count):
        target = folder / "train" / f"class_{number % CLASSES}" / f"{number:06}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        waves = rng.uniform(-0.05, 0.05, (2, 3)).astype(np.float32)
        pixels = 128 + 60 * np.sin(y[..., None] * waves[0] + x[..., None] * waves[1])
        pixels += rng.normal(0, 20, (HEIGHT, WIDTH, 1))
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(target, quality=90)


if __name__ == "__main__":
    make_images(Path(sys.argv[1]), int(sys.argv[2]))
    Path(sys.argv[3]).write_text("{}")
