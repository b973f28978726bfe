"""Find every broken image below a folder by decoding them all: mnasnet check-dataset /data/imagenet."""

from __future__ import annotations

import argparse
import json
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tqdm import tqdm

from mindcv_mnasnet.data.images import check_image
from mindcv_mnasnet.data.index import images_under
from mindcv_mnasnet.errors import UserError


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("directory", type=Path, help="folder with images at any depth")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: the cores)")
    arguments = parser.parse_args(argv)
    if not arguments.directory.is_dir():
        raise UserError(f"there is no folder {arguments.directory}")
    if arguments.workers < 1:
        raise UserError(f"--workers {arguments.workers}: at least one process is needed")
    names = images_under(str(arguments.directory))
    if not names:
        raise UserError(f"no images in {arguments.directory}")
    bad = _check(arguments.directory, names, arguments.workers)
    if arguments.json:
        print(
            json.dumps({"pictures": len(names), "bad": [{"name": name, "reason": bad[name]} for name in bad]}, indent=2)
        )
    else:
        for name, reason in bad.items():
            print(f"{name}: {reason}")
        print(f"{len(bad)} of {len(names)} images are broken" if bad else f"all {len(names)} images are sound")
    return 1 if bad else 0


def _check(root: Path, names: list[str], workers: int) -> dict[str, str]:
    """Reason by name of each broken image."""
    with ProcessPoolExecutor(workers) as pool:
        reasons = pool.map(check_image, [str(root / name) for name in names], chunksize=16)
        progress = tqdm(zip(names, reasons, strict=True), total=len(names), unit=" images", disable=None)
        return {name: reason for name, reason in progress if reason is not None}
