"""Name what images show, or find the objects in them: mnasnet predict MODEL IMAGES...

MODEL is a checkpoint, a run folder, or an exported .onnx, .tflite or .mindir file; IMAGES are files, folders, glob
patterns, or - for names on standard input.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from mindcv_mnasnet.errors import UserError, interrupts_wait
from mindcv_mnasnet.files import replace_file, require_writable, utf8
from mindcv_mnasnet.inference import image_paths
from mindcv_mnasnet.inference.contact_sheet import MOST, contact_sheet, sheet_format
from mindcv_mnasnet.recipe.command_line import Parser, add_keys, typed_keys
from mindcv_mnasnet.recipe.evaluation import EVALUATION_KEYS

if TYPE_CHECKING:
    from mindcv_mnasnet.inference.opened import OpenedModel
    from mindcv_mnasnet.inference.predict import Classifier, Prediction


def _parser() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="checkpoint, run folder or exported file")
    parser.add_argument("images", nargs="+", help="files, folders, glob patterns, or - (names on standard input)")
    parser.add_argument("--top", type=int, help="classes per image (default 5)")
    parser.add_argument("--min_score", type=float, help="a detector's least score to show (default 0.3)")
    parser.add_argument("--drawn", type=Path, metavar="FOLDER", help="a detector's boxes drawn into the images")
    parser.add_argument("--format", choices=("table", "csv", "jsonl"), default="table")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write there instead of printing")
    parser.add_argument(
        "--features",
        type=Path,
        metavar="FILE",
        help="pooled features: .npz with the names, or .npy with a .names.json beside",
    )
    parser.add_argument("--feature_maps", action="store_true", help="the maps of every reduction instead (.npz)")
    parser.add_argument("--contact_sheet", type=Path, metavar="FILE", help="what the network saw (.png, .jpg, ...)")
    parser.add_argument("--batch_size", type=int, help="images at once (default: as in the recipe)")
    parser.add_argument("--backend", help="run a checkpoint by mindspore (default), onnxruntime or litert")
    parser.add_argument("--weights", choices=("ema", "raw"), help="averaged or raw weights (default: ema if there)")
    add_keys(parser, only=EVALUATION_KEYS)
    return parser


def main(argv: list[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    _require_sense(options)
    with interrupts_wait():
        from mindcv_mnasnet.inference.opened import open_model  # loads MindSpore

    ema = None if options.weights is None else options.weights == "ema"
    keys = typed_keys(options, EVALUATION_KEYS)
    paths, missing = _found(options.images)
    opened = open_model(options.model, options.backend, ema, options.batch_size, keys)
    sound, broken = image_paths.sound_images(paths)
    text = (_classify if opened.checkpoint.detector is None else _detect)(opened, sound, options)
    if options.output is not None:
        replace_file(options.output, utf8(text).encode())
    else:
        print(text, end="")
    for sentence in (*missing, *(f"{path}: {reason}" for path, reason in broken.items())):
        print(f"failed: {sentence}", file=sys.stderr)
    return 1 if broken or missing else 0


def _classify(opened: OpenedModel, paths: list[str], options: argparse.Namespace) -> str:
    from mindcv_mnasnet.inference.predict import Classifier

    _refuse(options, ("min_score", "drawn"), f"{opened.checkpoint.path} is a classifier")
    classifier = Classifier(opened)
    predictions, seen = _predict(classifier, paths, options) if paths else ([], [])
    if options.contact_sheet is not None and predictions:
        captions = [
            f"{Path(one.path).name}\n{one.titles[0]}\n{100 * one.probabilities[0]:.1f} %" for one in predictions
        ]
        shown = contact_sheet(options.contact_sheet, list(zip(seen, captions, strict=False)))
        print(f"{shown} of {len(captions)} images on {options.contact_sheet}", file=sys.stderr)
    return _formatted(predictions, options.format)


def _detect(opened: OpenedModel, paths: list[str], options: argparse.Namespace) -> str:
    from mindcv_mnasnet.inference import detect

    _refuse(options, ("top", "features", "contact_sheet"), f"{opened.checkpoint.path} is a detector")
    least = detect.MIN_SCORE if options.min_score is None else options.min_score
    detect.require_score(least)
    if options.drawn is not None:
        detect.make_folder(options.drawn, paths)
    found = detect.ObjectDetector(opened).found_objects(paths, least) if paths else []
    objects = list(tqdm(found, total=len(paths), unit=" images", disable=None, delay=2))
    if options.drawn is not None:
        detect.write_drawn(options.drawn, objects)
    return detect.formatted(objects, options.format)


def _refuse(options: argparse.Namespace, names: tuple[str, ...], why: str) -> None:
    for name in names:
        if getattr(options, name) is not None:
            raise UserError(f"{name}: {why}, which has no use for it; leave it out")


def _found(images: list[str]) -> tuple[list[str], list[str]]:
    """Image paths, and a sentence for each name on standard input that stands for nothing.

    Raises:
        UserError: a name on the command line, or all names, stand for nothing.
    """
    paths: list[str] = []
    notes: list[str] = []
    if images != ["-"]:
        paths = image_paths.find_images(images, notes)
        print(*notes, sep="\n", end="\n" if notes else "", file=sys.stderr)
        return paths, []
    missing: list[str] = []
    for name in (line.strip() for line in sys.stdin or () if line.strip()):
        try:
            paths += image_paths.find_images([name])
        except UserError as error:
            missing.append(str(error))
    if not paths:
        raise UserError(missing[0] if missing else "standard input has no names of images")
    return paths, missing


def _require_sense(options: argparse.Namespace) -> None:
    if options.top is not None and options.top < 1:
        raise UserError(f"top: {options.top} classes are impossible; it is 1 or more")
    if options.features is not None:
        allowed = (".npz",) if options.feature_maps else (".npy", ".npz")
        if options.features.suffix not in allowed:
            raise UserError(f"features: {options.features} has to end in {' or '.join(allowed)}")
    elif options.feature_maps:
        raise UserError("feature_maps: say where to with --features FILE.npz")
    if options.contact_sheet is not None:
        sheet_format(options.contact_sheet)
    for name in ("output", "features", "contact_sheet"):
        require_writable(f"--{name}", getattr(options, name))


def _predict(
    classifier: Classifier, paths: list[str], options: argparse.Namespace
) -> tuple[list[Prediction], list[np.ndarray]]:
    """Predictions, and the images as the network saw them as far as a contact sheet has room for them."""
    extract = None if options.features is None else classifier.features(options.feature_maps)
    predictions: list[Prediction] = []
    features: list[list[np.ndarray]] = []
    seen: list[np.ndarray] = []
    with tqdm(total=len(paths), unit=" images", disable=None, delay=2) as progress:
        for some, images in classifier.predictions(paths, options.top or 5):
            predictions += some
            if options.contact_sheet is not None:
                seen += list(images[: MOST - len(seen)])
            if extract is not None:
                features.append(extract(images))
            progress.update(len(some))
    if extract is not None:
        _write_features(options.features, [one.path for one in predictions], features, options.feature_maps)
    return predictions, seen


def _write_features(path: Path, names: list[str], batches: list[list[np.ndarray]], maps: bool) -> None:
    joined = [np.concatenate(parts) for parts in zip(*batches, strict=True)]
    content = io.BytesIO()
    if path.suffix == ".npy":
        np.save(content, joined[0])
        replace_file(path.with_suffix(".names.json"), json.dumps(names).encode())
    elif maps:
        np.savez(content, names=np.array(names), **{f"map_{number}": value for number, value in enumerate(joined)})
    else:
        np.savez(content, names=np.array(names), features=joined[0])
    replace_file(path, content.getvalue())


def _formatted(predictions: list[Prediction], form: str) -> str:
    out = io.StringIO()
    if form == "csv":
        writer = csv.writer(out)
        writer.writerow(["path", "rank", "class", "title", "probability"])
        for one in predictions:
            ranked = zip(one.classes, one.titles, one.probabilities, strict=True)
            writer.writerows([one.path, rank, *row[:2], f"{row[2]:.6f}"] for rank, row in enumerate(ranked, 1))
    elif form == "jsonl":
        for one in predictions:
            ranked = zip(one.classes, one.titles, one.probabilities, strict=True)
            top = [{"class": name, "title": title, "probability": round(share, 6)} for name, title, share in ranked]
            out.write(json.dumps({"path": one.path, "top": top}) + "\n")
    else:
        width = max((len(one.path) for one in predictions), default=0)
        for one in predictions:
            named = zip(one.titles, one.probabilities, strict=True)
            answers = "  ".join(f"{title} {100 * share:.1f} %" for title, share in named)
            out.write(f"{one.path:<{width}}  {answers}\n")
    return out.getvalue()
