"""Annotation files and images to test with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

COLORS = ((230, 40, 40), (40, 60, 230))


def annotation(number: int, image: int, bbox: list[float], category: int = 1, **more: Any) -> dict[str, Any]:
    """One annotation with the area of its box."""
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": bbox,
        "area": bbox[2] * bbox[3],
        "iscrowd": 0,
        **more,
    }


def document(images: list[tuple[int, int, int]], annotations: list[dict[str, Any]], categories: int = 2) -> dict:
    """A COCO file: images (id, width, height), categories of ids 10, 20, ... mapped from 1, 2, ..."""
    return {
        "images": [{"id": n, "file_name": f"{n}.png", "width": w, "height": h} for n, w, h in images],
        "annotations": [{**one, "category_id": 10 * one["category_id"]} for one in annotations],
        "categories": [{"id": 10 * number, "name": f"class {number}"} for number in range(1, categories + 1)],
    }


def write(path: Path, content: dict) -> Path:
    """A JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def colored_data_set(root: Path, train: int = 6, val: int = 4, side: int = 64) -> Path:
    """Noisy gray images with one or two filled rectangles, red ones of class 1 and blue ones of class 2."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        boxes, images = [], []
        (root / split).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(90, 160, (side, side + 8 * (number % 2), 3), np.uint8)
            height, width = pixels.shape[:2]
            images.append((number, width, height))
            for kind in range(1 + number % 2):
                w, h = rng.integers(side // 4, side // 2, 2).tolist()
                x, y = int(rng.integers(0, width - w)), int(rng.integers(0, height - h))
                pixels[y : y + h, x : x + w] = COLORS[kind]
                boxes.append(annotation(len(boxes) + 1, number, [x, y, w, h], kind + 1))
            Image.fromarray(pixels).save(root / split / f"{number}.png")
        write(root / "annotations" / f"instances_{split}.json", document(images, boxes))
    return root
