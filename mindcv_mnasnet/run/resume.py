"""Going on with a run: its newest checkpoint, and its recipe with what may change."""

from __future__ import annotations

from dataclasses import replace

from mindcv_mnasnet.errors import JobError, UserError
from mindcv_mnasnet.files import with_home
from mindcv_mnasnet.recipe.recipe import Recipe, diff
from mindcv_mnasnet.recipe.rule import Use
from mindcv_mnasnet.recipe.values import keys_for
from mindcv_mnasnet.run.checkpoint import Checkpoint, newest_intact
from mindcv_mnasnet.run.folder import RunFolder


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
    return [
        f"recipe.yaml of {folder.path} has another {', '.join(other)} than the checkpoint, which counts; "
        f"to change it say --{other[0]} VALUE --allow_changes {other[0]}"
    ]


def merged(recipe: Recipe, before: Recipe) -> Recipe:
    """The run's recipe with what was given now on top; changes have to be named in ``allow_changes``."""
    given = {name: value for name, value in recipe.to_dict().items() if name in recipe.given and name != "resume"}
    whole = Recipe.from_dict({**before.to_dict(), **given})
    whole = replace(whole, given=recipe.given | before.given, resume=recipe.resume)
    folder = with_home(whole.data_dir) / whole.train_split
    if whole.dataset == "digits" and "data_dir" in recipe.given and not folder.is_dir():
        raise UserError(f"data_dir: there is no folder {folder}; a resumed run does not write the digits again")
    free = (*recipe.allow_changes, *keys_for(Use.BATCH))
    refused = [name for name in diff(before, whole) if name not in free]
    if refused:
        name = refused[0]
        raise UserError(
            f"{name}: the run was made with {getattr(before, name)!r} and is resumed with {getattr(whole, name)!r}; "
            f"leave it as it was, or say --allow_changes {','.join(refused)}"
        )
    return whole
