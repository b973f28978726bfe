"""The end of a search: the verdict in words, and the finalists as files for devices."""

from __future__ import annotations

from collections.abc import Iterator

from mindcv_mnasnet.errors import JobError, UserError
from mindcv_mnasnet.export.export import Options, export
from mindcv_mnasnet.run.folder import find_checkpoints
from mindcv_mnasnet.search.evidence import verdict_sections
from mindcv_mnasnet.search.folder import SearchFolder
from mindcv_mnasnet.search.results import read_again, standing
from mindcv_mnasnet.search.trials import TrialLog

FORMATS = ("onnx", "tflite")


def export_winners(folder: SearchFolder) -> Iterator[str]:
    """Export every finalist, validated against its checkpoint, into ``winners``; yields the verdict and each report.

    A format whose extra is not installed is a line that says so.
    """
    settings = folder.stored_settings()
    everything = TrialLog(folder.trials).read()
    for section in verdict_sections(settings, everything):
        yield from section.sentences
    last = len(settings.rungs) + 1
    order = [one for one in standing(everything, settings, read_again(folder.again)) if one.rung == last]
    for place, trial in enumerate(order, start=1):
        run = folder.path / "trials" / f"{trial.number:06d}-rung{last}" / "run"
        for form in FORMATS:
            try:
                (checkpoint, *_) = find_checkpoints([str(run)])
                options = Options(format=form, data_dir=settings.final_recipe().data_dir, overwrite=True)
                yield str(export(checkpoint, folder.winners / f"{place}.{form}", options))
            except (UserError, JobError) as error:
                yield f"winner {place} as {form}: {error}"
