"""The whole report of a run, from its files, in the order of the report that this project started from."""

from __future__ import annotations

from gradnorm_plugin.report.batches import batches_section
from gradnorm_plugin.report.blocks import Gallery, Missing, Picture, Report, Section
from gradnorm_plugin.report.describe import data_section, model_section, run_section, settings_section
from gradnorm_plugin.report.files import RunFiles
from gradnorm_plugin.report.final import final_section
from gradnorm_plugin.report.headline import limits, tiles
from gradnorm_plugin.report.interference import interference_section
from gradnorm_plugin.report.learning import learning_section
from gradnorm_plugin.report.weights import weights_section
from gradnorm_plugin.report.wording import Wording

EXAMPLES = ("train_batch0", "val_batch0_labels", "val_batch0_pred")
LABELS = ("contents", "headline", "tile", "value", "note", "footer", "paper", "yolov5")


def compose(run: RunFiles, say: Wording) -> Report:
    """All sections; those whose file is missing say so.

    Raises:
        ReportError: if a file does not hold what training writes there.
    """
    sections = [
        make(run, say)
        for make in (
            run_section, model_section, data_section, batches_section, weights_section, learning_section, interference_section,
            final_section, pictures_section, settings_section,
        )
    ]  # fmt: skip
    name = run.folder.resolve().name
    return Report(
        language=say.language,
        title=say("page.title", name=name),
        subtitle=say("page.subtitle"),
        tiles=tiles(run, say),
        limits_title=say("limits.title"),
        limits=limits(run, say),
        sections=sections,
        labels={label: say(f"page.{label}") for label in LABELS},
    )


def pictures_section(run: RunFiles, say: Wording) -> Section:
    """Batches as the network saw them, and what it made of the validation images."""
    files = {name: run.folder / f"{name}.jpg" for name in EXAMPLES}
    pictures = [Picture(file, say(f"picture.{name}")) for name, file in files.items() if file.is_file()]
    blocks = [Gallery(pictures)] if pictures else []
    absent = [file.name for file in files.values() if not file.is_file()]
    if absent:
        blocks.append(Missing(say("missing.pictures", files=say.listed(absent))))
    return Section("pictures", say("pictures.title"), blocks)
