"""Going on with a run: its newest checkpoint, and its recipe with what may change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from mindcv_mnasnet.errors import JobError, UserError
from mindcv_mnasnet.files import with_home
from mindcv_mnasnet.recipe.recipe import Recipe, diff
from mindcv_mnasnet.recipe.rule import Use
from mindcv_mnasnet.recipe.values import key_table, keys_for
from mindcv_mnasnet.run.checkpoint import Checkpoint, newest_intact
from mindcv_mnasnet.run.folder import RunFolder, storable


def stored_state(recipe: Recipe) -> tuple[RunFolder | None, Checkpoint | None, list[str]]:
    """Run folder and newest intact checkpoint to resume from."""
    if recipe.resume is None:
        return None, None, []
    folder = RunFolder.open(recipe.resume)
    checkpoint, complaints = newest_intact(folder.checkpoints)
    if checkpoint is None and (complaints or folder.has_summary()):
        raise JobError(f"{folder.path} has no intact checkpoint to resume from{''.join(f'; {c}' for c in complaints)}")
    if checkpoint is None:
        return folder, None, [f"{folder.path} has no checkpoint yet; starting from the beginning"]
    return folder, checkpoint, [*complaints, f"resuming from {checkpoint.path}", *_edited(folder, checkpoint)]


def _edited(folder: RunFolder, checkpoint: Checkpoint) -> list[str]:
    """A sentence where ``recipe.yaml`` says anything else than the checkpoint, which counts."""
    try:
        other = diff(folder.recipe(), checkpoint.recipe)
    except UserError as error:
        return [f"{error}; the run goes on by its checkpoint's recipe"]
    if not other:
        return []
    said = f"--{other[0]} VALUE --allow_changes {other[0]}"
    return [
        f"recipe.yaml of {folder.path} has another {', '.join(other)} than the checkpoint, which counts; "
        f"to change it {_anew(other[:1], folder.path) or f'say {said}'}"
    ]


def _anew(names: Sequence[str], path: str | Path) -> str | None:
    """What to do where the state of a run does not outlive such changes; None where it does."""
    fixed = keys_for(Use.STATE | Use.NETWORK)
    return f"start a new run with --init_from {path}" if any(name in fixed for name in names) else None


_OF_NEW_RUNS = {
    "run_name": "a run stays in its folder",
    "ckpt_save_dir": "a run stays in its folder",
    "ckpt_path": "a resumed run has its own weights",
    "new_head": "a resumed run has its own classifier",
}


def merged(recipe: Recipe, before: Recipe) -> Recipe:
    """The run's recipe with what was given now on top; changes have to be named in ``allow_changes``."""
    given = {name: value for name, value in recipe.to_dict().items() if name in recipe.given and name != "resume"}
    whole = Recipe.from_dict({**before.to_dict(), **given})
    whole = replace(whole, given=recipe.given | before.given, resume=recipe.resume)
    folder = with_home(whole.data_dir) / whole.train_split
    if whole.dataset == "digits" and "data_dir" in recipe.given and not folder.is_dir():
        raise UserError(f"data_dir: there is no folder {folder}; a resumed run does not write the digits again")
    kept, stored = storable(whole), storable(before)
    for name, why in _OF_NEW_RUNS.items():
        said = getattr(kept, name)
        if name in recipe.given and said not in (getattr(stored, name), key_table()[name].default):
            raise UserError(f"{name}: {said!r} is of no use with --resume: {why}; leave it out")
    free = (*recipe.allow_changes, *keys_for(Use.BATCH))
    refused = [name for name in diff(before, whole) if name not in free]
    if refused:
        name = next((name for name in refused if _anew([name], "")), refused[0])
        said = ",".join(refused)
        raise UserError(
            f"{name}: the run was made with {getattr(before, name)!r} and is resumed with {getattr(whole, name)!r}; "
            f"leave it as it was, or {_anew(refused, str(recipe.resume)) or f'say --allow_changes {said}'}"
        )
    return whole


def require_newest(folder: RunFolder, stored: Checkpoint | None) -> None:
    """Refuse a run that another process has gone on with between reading its state and locking its folder.

    Raises:
        UserError: ``stored`` is not the newest checkpoint any more.
    """
    newest, _ = newest_intact(folder.checkpoints)
    if newest is not None and (stored is None or newest.path.name != stored.path.name):
        raise UserError(f"resume: another process went on with {folder.path} meanwhile; give the command again")


@contextmanager
def misfits_explained(recipe: Recipe, path: Path) -> Iterator[None]:
    """Within it, a state that does not fit a changed recipe is refused with what to do instead."""
    try:
        yield
    except UserError as error:
        if not recipe.allow_changes:
            raise
        raise UserError(f"{error}; such a change needs a new run, with --init_from {path}") from None
