"""Pack an image folder into MindRecord shards: mnasnet pack /data/imagenet /data/imagenet-packed.

SRC holds class folders, or train and val folders that do. An interrupted packing goes on where it stopped when the same
command is given again; the result is a data_dir for training. With --short_side images are packed smaller, which is
what makes reading them quicker: decoding takes as long as an image has pixels.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tqdm import tqdm

from mindcv_mnasnet.data.index import ImageIndex, list_folder
from mindcv_mnasnet.data.labels import list_flat
from mindcv_mnasnet.data.pack_check import differences
from mindcv_mnasnet.data.pack_writer import write_pack
from mindcv_mnasnet.data.packs import open_pack
from mindcv_mnasnet.data.scaling import DEFAULT_QUALITY, Scaling
from mindcv_mnasnet.errors import JobError, UserError
from mindcv_mnasnet.recipe.command_line import Parser

_IMAGES_PER_SHARD = 8192
_SHOWN_DIFFERENCES = 20


def main(argv: list[str] | None = None) -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="SRC", type=Path, help="image folder")
    parser.add_argument("target", metavar="DST", type=Path, help="folder for the pack")
    parser.add_argument("--shards", type=int, help=f"per split (default: one for {_IMAGES_PER_SHARD} images)")
    parser.add_argument("--short_side", type=int, metavar="N", help="scale images down to N pixels, never up")
    parser.add_argument("--quality", type=int, help=f"JPEG quality of scaled images (default {DEFAULT_QUALITY})")
    parser.add_argument("--verify", action="store_true", help="afterwards compare names, labels and images with SRC")
    parser.add_argument("--train_split", metavar="NAME", help="the training folder in SRC (default: train)")
    parser.add_argument("--val_split", metavar="NAME", help="the validation folder in SRC (default: val)")
    parser.add_argument("--val_labels", type=Path, help="label file of a flat validation folder")
    arguments = parser.parse_args(argv)
    if not arguments.source.is_dir():
        raise UserError(f"there is no folder {arguments.source}")
    if arguments.target.resolve() == arguments.source.resolve():
        raise UserError(
            f"{arguments.target}: a pack is not written among the images that it is made of; name another DST"
        )
    if arguments.shards is not None and arguments.shards < 1:
        raise UserError(f"--shards {arguments.shards}: at least one is needed")
    scaling = _scaling(arguments.short_side, arguments.quality)
    for part, image_index in _parts(arguments).items():
        for note in image_index.notes:
            print(note)
        _pack(image_index, arguments.target / part, arguments.shards, scaling, arguments.verify)
    return 0


def _scaling(short_side: int | None, quality: int | None) -> Scaling | None:
    if short_side is None:
        if quality is not None:
            raise UserError("--quality is that of scaled images; say --short_side too, or leave it out")
        return None
    return Scaling(short_side, DEFAULT_QUALITY if quality is None else quality)


def _parts(arguments: argparse.Namespace) -> dict[str, ImageIndex]:
    """What to pack by its folder in DST; one part in DST itself where SRC has no splits."""
    train, val = (_split(arguments, name) for name in ("train_split", "val_split"))
    parts: dict[str, ImageIndex] = {}
    if train is not None:
        parts[train.name] = list_folder(train)
    if val is not None:
        names = parts[train.name].class_names if train is not None else None
        flat = arguments.val_labels
        parts[val.name] = list_flat(val, flat, names) if flat else list_folder(val, names)
    elif arguments.val_labels is not None:
        raise UserError(f"--val_labels: there is no folder {arguments.source / 'val'} that it could label")
    return parts or {"": list_folder(arguments.source)}


def _split(arguments: argparse.Namespace, option: str) -> Path | None:
    """The folder of a split; None where SRC has none and none was asked for."""
    name = getattr(arguments, option)
    folder = arguments.source / (name or option.removesuffix("_split"))
    if name is not None and (folder.parent != arguments.source or folder.name == ".." or not folder.is_dir()):
        raise UserError(f"--{option}: {arguments.source} has no folder {name!r}")
    return folder if folder.is_dir() else None


def _pack(image_index: ImageIndex, target: Path, shards: int | None, scaling: Scaling | None, verify: bool) -> None:
    if image_index.labels.ndim > 1:
        raise UserError(f"{image_index.root}: images with several labels cannot be packed")
    with tqdm(total=len(image_index), desc="packing", unit=" images", disable=None) as progress:
        count = shards or -(-len(image_index) // _IMAGES_PER_SHARD)
        again = write_pack(image_index, target, count, progress.update, scaling)
    how = "" if scaling is None else f" ({scaling})"
    print(f"{target}: {len(image_index)} images of {len(image_index.class_names)} classes packed{how}")
    if again:
        print(f"{target}: {again} shards were made again, because images in {image_index.root} have changed")
    if verify:
        with tqdm(total=len(image_index), desc="verifying", unit=" images", disable=None) as progress:
            found = list(differences(image_index, open_pack(target), progress.update))
        for difference in found[:_SHOWN_DIFFERENCES]:
            print(difference)
        if found:
            raise JobError(f"{target} differs from {image_index.root} in {len(found)} places")
        print(f"{target}: equal to {image_index.root} in names, labels and {'bytes' if scaling is None else 'images'}")
