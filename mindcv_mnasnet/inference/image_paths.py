"""The images that names on a command line or in a call stand for, and which of them can be decoded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mindcv_mnasnet.data.decoder import check_image
from mindcv_mnasnet.data.walk import LeftOut, images_under
from mindcv_mnasnet.errors import JobError, UserError
from mindcv_mnasnet.files import matching, with_home


def find_images(names: Sequence[str], notes: list[str] | None = None) -> list[str]:
    """Paths of all images that files, folders (at any depth) and glob patterns stand for, in that order.

    Args:
        notes: takes a sentence about what was left out of each folder.
    Raises:
        UserError: a name that stands for nothing.
    """
    found: list[str] = []
    for name in names:
        files = [file for match in matching(name) for file in _files(match, notes)]
        if not files:
            inside = with_home(name).is_dir()
            raise UserError(f"{name}: there {'are no images in this folder' if inside else 'is nothing'}")
        found += files
    return found


def _files(path: Path, notes: list[str] | None) -> list[str]:
    if not path.is_dir():
        return [str(path)]
    left_out = LeftOut()
    files = [str(path / inner) for inner in images_under(path, left_out)]
    if notes is not None:
        notes += left_out.notes(str(path))
    return files


def sound_images(paths: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The images that can be decoded, and the reason for each that cannot."""
    reasons = {path: check_image(path) for path in paths}
    broken = {path: reason for path, reason in reasons.items() if reason is not None}
    return [path for path in paths if path not in broken], broken


def sound_paths(images: str | Path | Sequence[str | Path]) -> list[str]:
    """The paths that files, folders and glob patterns stand for.

    Raises:
        UserError: a name that stands for nothing.
        JobError: an image that cannot be decoded.
    """
    paths = find_images([str(one) for one in ([images] if isinstance(images, str | Path) else images)])
    _, broken = sound_images(paths)
    for path, reason in broken.items():
        raise JobError(f"{path}: {reason}")
    return paths
