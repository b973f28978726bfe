"""Find whatever training would refuse in a data set: mnasnet check-dataset /data/imagenet.

All images are decoded as training decodes them, and the folders are read as it reads them. A folder without folders of
images, such as one of photographs to predict, is checked for broken images alone. Boxes are those of
D/annotations/instances_SPLIT.json, with images in D/SPLIT, every fault of which is named; D may be one such file, too.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tqdm import tqdm

from mindcv_mnasnet.data.decoder import check_image
from mindcv_mnasnet.data.index import list_folder
from mindcv_mnasnet.data.packs import is_pack
from mindcv_mnasnet.data.sets import open_train_val, open_val
from mindcv_mnasnet.data.walk import LeftOut, class_folders, images_under
from mindcv_mnasnet.detection.coco import judge
from mindcv_mnasnet.devices.processor import usable_cores
from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.recipe.command_line import Parser
from mindcv_mnasnet.recipe.recipe import Recipe, load_recipe

_BEFORE_SPLIT = "instances_"
Sizes = dict[str, tuple[int, int] | None]  # by an image's path: width and height as annotated


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    if arguments.workers < 1:
        raise UserError(f"--workers {arguments.workers}: at least one process is needed")
    faults, root, sizes = _annotated(arguments.data, arguments.images)
    refusal: str | None = None
    notes: tuple[str, ...] = ()
    if arguments.data.is_dir():
        sizes, left_out = _found(root, sizes)
        if not any(faults.values()):
            refusal, notes = _as_data_set(root, bool(faults), arguments)
        notes = notes or left_out
    bad = _check(root, sizes, arguments.workers)
    if arguments.json:
        report: dict[str, object] = {
            "images": len(sizes),
            "bad": [{"name": name, "reason": reason} for name, reason in bad.items()],
            "refusal": refusal,
            "notes": notes,
        }
        if faults:
            report["annotations"] = [{"file": str(file), "faults": found} for file, found in faults.items()]
        print(json.dumps(report, indent=2))
    else:
        for line in (*(f"{file}: {fault}" for file, found in faults.items() for fault in found), *_lines(bad), *notes):
            print(line)
        for file, found in faults.items():
            print(f"{file}: {len(found)} faults" if found else f"{file} is sound")
        if refusal:
            print(f"training refuses it: {refusal}")
        print(f"{len(bad)} of {len(sizes)} images are broken" if bad else f"all {len(sizes)} images can be read")
    return 1 if bad or refusal or any(faults.values()) else 0


def _found(root: Path, sizes: Sizes) -> tuple[Sizes, tuple[str, ...]]:
    """All images of a folder, with the sizes that are known, and notes on what was left out."""
    left_out = LeftOut()
    names = images_under(root, left_out)
    if not names:
        packed = is_pack(root) or any(is_pack(folder) for folder in root.iterdir())
        raise UserError(
            f"{root} is a pack; mnasnet pack SRC {root} --verify checks it" if packed else f"no images in {root}"
        )
    return {name: sizes.get(name) for name in names}, left_out.notes(str(root))


def _boxes_to_train_on(recipe: Recipe) -> tuple[str, ...]:
    """Notes on a data set with boxes; an annotation file of neither split was judged by itself.

    Raises:
        UserError: what training refuses.
    """
    from mindcv_mnasnet.detection.data import open_train_val, open_val  # loads MindSpore

    train, val = (
        Path(recipe.data_dir, "annotations", f"{_BEFORE_SPLIT}{split}.json").is_file()
        for split in (recipe.train_split, recipe.val_split)
    )
    if train:
        return tuple(note for part in open_train_val(recipe) if part is not None for note in part.notes)
    return open_val(recipe).notes if val else ()


def _as_data_set(root: Path, annotated: bool, arguments: argparse.Namespace) -> tuple[str | None, tuple[str, ...]]:
    """What training refuses about the folders, if anything, and its notes; neither where they are no data set."""
    names = ("train_split", "val_split", "val_labels")
    keys = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    recipe = load_recipe(overrides={"data_dir": str(root), **keys})
    try:
        if annotated:
            return None, _boxes_to_train_on(recipe)
        if (root / recipe.train_split).is_dir():
            parts = open_train_val(recipe)
        elif (root / recipe.val_split).is_dir():
            parts = (open_val(recipe), None)
        elif any(class_folders(root)[0].values()):
            parts = (list_folder(root), None)
        else:
            return None, ()
    except UserError as error:
        return str(error), ()
    return None, tuple(note for part in parts if part is not None for note in part.notes)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with images at any depth, or an annotation file")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="the annotation file's images, if elsewhere")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--workers", type=int, default=usable_cores(), help="processes (default: the cores)")
    parser.add_argument("--train_split", help="name of the training folder (default: train)")
    parser.add_argument("--val_split", help="name of the validation folder (default: val)")
    parser.add_argument("--val_labels", help="label file of a flat validation folder")
    return parser


def _annotated(data: Path, images: Path | None) -> tuple[dict[Path, list[str]], Path, Sizes]:
    """Faults by annotation file, the folder that images are relative to, and the annotated images that are there."""
    if data.is_dir():
        if images is not None:
            raise UserError("images: the images of a folder are in it; it is for a single annotation file")
        files, root = sorted((data / "annotations").glob(f"{_BEFORE_SPLIT}*.json")), data
    elif data.is_file():
        files, root = [data], images or data.parent.parent / data.stem.removeprefix(_BEFORE_SPLIT)
    else:
        raise UserError(f"there is no folder or annotation file {data}")
    faults: dict[Path, list[str]] = {}
    sizes: Sizes = {}
    for file in files:
        folder = root / file.stem.removeprefix(_BEFORE_SPLIT) if data.is_dir() else root
        faults[file], own = _check_boxes(file, folder)
        sizes |= {(folder / name).relative_to(root).as_posix(): size for name, size in own.items()}
    return faults, root, sizes


def _check_boxes(file: Path, folder: Path) -> tuple[list[str], Sizes]:
    """All faults of one annotation file, and the sizes of its images that are in the folder."""
    try:
        annotations, faults = judge(file)
    except UserError as error:
        return [str(error).removeprefix(f"{file} ")], {}
    if not folder.is_dir():
        return [*faults, f"there is no folder {folder} with its images"], {}
    sizes: Sizes = {}
    for image in annotations.images:
        if (folder / image.file_name).is_file():
            sizes[image.file_name] = (image.width, image.height)
        else:
            faults.append(f"image id {image.id}: {folder} has no {image.file_name}")
    return faults, sizes


def _check(root: Path, sizes: Sizes, workers: int) -> dict[str, str]:
    """Reason by name of each broken image."""
    with ProcessPoolExecutor(workers) as pool:
        paths = [str(root / name) for name in sizes]
        reasons = pool.map(check_image, paths, sizes.values(), chunksize=16)
        progress = tqdm(zip(sizes, reasons, strict=True), total=len(sizes), unit=" images", disable=None)
        return {name: reason for name, reason in progress if reason is not None}


def _lines(bad: dict[str, str]) -> list[str]:
    return [f"{name}: {reason}" for name, reason in bad.items()]
