"""The report of a training run: its sections in their order, and the `report` command that writes it.

It is written as Markdown, with links to the run's pictures, and as one HTML page that contains everything it shows.
"""

from __future__ import annotations

import argparse
import base64
import os
import re
from collections.abc import Sequence
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image, UnidentifiedImageError

from gradnorm_plugin.files import explain, read_bytes, write_text
from gradnorm_plugin.names import one_line
from gradnorm_plugin.report.blocks import (
    LANGUAGES,
    Block,
    Cell,
    Gallery,
    Missing,
    Picture,
    Report,
    Section,
    Span,
    Text,
    Wording,
    pictures,
)
from gradnorm_plugin.report.configuration import data_section, model_section, run_section, settings_section
from gradnorm_plugin.report.dynamics import batches_section, interference_section, losses_section, weights_section
from gradnorm_plugin.report.final import final_section
from gradnorm_plugin.report.headline import limits, tiles
from gradnorm_plugin.report.run_files import ReportError, RunFiles, read_run
from gradnorm_plugin.terminal import fail, parse

EXAMPLES = ("train_batch0.jpg", "val_batch0_labels.jpg", "val_batch0_pred.jpg")


def main(argv: Sequence[str] | None = None) -> None:
    """Write the report with the flags of `argv` (default: the command line's). Status 1 and one message on bad input."""
    parser = argparse.ArgumentParser(
        prog="yolov5-gradnorm report", description="Write report.md and report.html from the files in a run's folder."
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a training run, such as runs/train/exp")
    parser.add_argument("--lang", choices=LANGUAGES, default="en", help="language of the report (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="where to write (default: RUN)")
    options = parse(parser, argv)
    try:
        written = write_report(options.run, options.lang, options.output)
    except ReportError as error:
        fail(str(error))
    except OSError as error:
        fail(explain(error))
    for file in written:
        print(file)


def write_report(run: Path, lang: str = "en", out: Path | None = None) -> list[Path]:
    """Write `report.md` and `report.html` of the run in folder `run` into `out` (default: the same); returns their paths.

    Raises:
        ReportError: if `run` is not a run's folder, or a file in it cannot be used. Nothing is written then.
        ValueError: if there are no texts for `lang`.
        OSError: if `out` cannot be written.
    """
    if lang not in LANGUAGES:
        raise ValueError(f"lang is {lang!r}, expected one of {', '.join(LANGUAGES)}")
    found = read_run(run)
    say = Wording(lang, found.tasks)
    return write_pages(compose(found, say), say, out or run, "report")


def write_pages(report: Report, say: Wording, folder: Path, name: str) -> list[Path]:
    """Write a report as `name`.md and `name`.html into `folder`; returns their paths.

    Raises:
        OSError: if they cannot be written.
    """
    pages = {folder / f"{name}.md": render_markdown(report, say, folder), folder / f"{name}.html": render_html(report, say)}
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in pages.items():
        write_text(file, text)
    return [*pages]


def compose(run: RunFiles, say: Wording) -> Report:
    """The whole report; a section whose file is missing says so.

    Raises:
        ReportError: if a file does not hold what training writes there.
    """
    return Report(
        language=say.language,
        title=say("page.title", name=run.folder.resolve().name),
        subtitle=say("page.subtitle"),
        tiles=[*tiles(run, say)],
        limits_title=say("limits.title"),
        limits=[*limits(run, say)],
        sections=[
            run_section(run, say),
            model_section(run, say),
            data_section(run, say),
            batches_section(run, say),
            weights_section(run, say),
            losses_section(run, say),
            interference_section(run, say),
            final_section(run, say),
            pictures_section(run, say),
            settings_section(run, say),
        ],
        labels={label: say(f"page.{label}") for label in LABELS},
    )


def pictures_section(run: RunFiles, say: Wording) -> Section:
    """Batches as the network saw them, and its predictions for the validation images."""
    found = pictures(run.folder, EXAMPLES, say)
    blocks: list[Block] = [Gallery(found)] if found else []
    absent = [name for name in EXAMPLES if not (run.folder / name).is_file()]
    if absent:
        blocks.append(Missing(say("missing.pictures", files=say.listed(absent))))
    return Section("pictures", say("pictures.title"), blocks)


LABELS = ("contents", "headline", "tile", "value", "note", "footer", "paper", "yolov5")
"""The keys of `Report.labels`."""
PICTURE_BYTES = 3_300_000
"""Of all pictures of a page together; base64 adds a third, so a page stays below 5 MB."""
PICTURE_WIDTHS = (1600, 1200, 900)
"""Largest width in pixels: the first at which all pictures fit into `PICTURE_BYTES`, or else the last."""
JPEG_QUALITY = 82
LANGUAGE_TAGS = {"en": "en", "zh-TW": "zh-Hant-TW"}
# Punctuation that Markdown may read as markup anywhere in a line or a table cell.
_MARKDOWN = re.compile(r"([\\`*\[\]|~$])")
_AUTOLINK = re.compile(r"(?i)(?:(?<=http)|(?<=https)|(?<=ftp)):(?=//)|(?<=\bwww)\.|@")
"""Where GitHub turns a web or mail address into a link by itself."""
_BLOCK = re.compile(r"^(\d*)([#+-](?=[# ]|$)|[.)](?= |$))")
"""What starts a heading or a list at the beginning of a line."""
_UNDERSCORE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")


def render_html(report: Report, say: Wording) -> str:
    """The page, with its style and its pictures in it: it loads nothing."""
    environment = _environment(autoescape=True)
    environment.filters["inline"] = _html
    style = Markup((files("gradnorm_plugin.report") / "templates" / "style.css").read_text(encoding="utf-8"))
    template = environment.get_template("report.html.jinja")
    pictures = _embedded(report, say)
    return template.render(report=report, say=say, pictures=pictures, style=style, language=LANGUAGE_TAGS[report.language])


def render_markdown(report: Report, say: Wording, folder: Path) -> str:
    """The report for a Markdown file in `folder`."""
    environment = _environment(autoescape=False)
    environment.filters |= {"inline": _markdown, "link": lambda file: _link(file, folder)}
    return environment.get_template("report.md.jinja").render(report=report, say=say)


def _environment(autoescape: bool) -> Environment:
    return Environment(
        loader=PackageLoader("gradnorm_plugin.report"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _spans(cell: Cell) -> Text:
    return (Span(one_line(cell)),) if isinstance(cell, str) else cell


def _html(cell: Cell) -> Markup:
    return Markup("").join(Markup("<code>{}</code>").format(s.text) if s.code else escape(s.text) for s in _spans(cell))


def _markdown(cell: Cell) -> str:
    pieces = [_code(span.text) if span.code else _escaped(span.text) for span in _spans(cell)]
    return _BLOCK.sub(r"\1\\\2", "".join(pieces))


def _escaped(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = _UNDERSCORE.sub(r"\\_", _MARKDOWN.sub(r"\\\1", text))
    return _AUTOLINK.sub(lambda found: f"&#{ord(found[0])};", text)


def _code(text: str) -> str:
    """A code span; a value that could end the span or a table cell is written as plain text."""
    return _escaped(text) if set(text) & set("`|\\") else f"`{text}`"


def _link(file: Path, folder: Path) -> str:
    try:
        return quote(Path(os.path.relpath(file, folder)).as_posix())
    except ValueError:  # another drive
        return file.resolve().as_uri()


class _Embedded(NamedTuple):
    """A picture for `<img src>` and its size in pixels."""

    source: str
    width: int
    height: int


def _embedded(report: Report, say: Wording) -> dict[Path, _Embedded | Missing]:
    """Every picture of the report, or the line that stands in its place: it cannot be read, or there is no room for it."""
    blocks = [block for section in report.sections for block in section.blocks]
    shown = [inner for block in blocks for inner in (block.pictures if isinstance(block, Gallery) else [block])]
    files = [block.file for block in shown if isinstance(block, Picture)]
    for width in PICTURE_WIDTHS:
        encoded = {file: _encode(file, width, say) for file in files}
        if sum(len(found[0]) for found in encoded.values() if not isinstance(found, Missing)) <= PICTURE_BYTES:
            break
    room = PICTURE_BYTES
    embedded: dict[Path, _Embedded | Missing] = {}
    for file, found in encoded.items():
        if isinstance(found, Missing):
            embedded[file] = found
            continue
        contents, kind, size = found
        room -= len(contents)
        source = f"data:image/{kind};base64,{base64.b64encode(contents).decode('ascii')}"
        embedded[file] = _Embedded(source, *size) if room >= 0 else Missing(say("missing.too_large", file=file.name))
    return embedded


def _encode(file: Path, width: int, say: Wording) -> tuple[bytes, str, tuple[int, int]] | Missing:
    try:
        contents = read_bytes(file)
        with Image.open(BytesIO(contents)) as opened:
            opened.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        # Pillow's own message for an unknown format ends with a memory address
        reason = "unknown image format" if isinstance(error, UnidentifiedImageError) else error
        return Missing(say("missing.picture", file=file.name, reason=reason))
    image: Image.Image = opened
    kind = "jpeg" if image.format == "JPEG" else "png"
    if image.width <= width and image.format in {"JPEG", "PNG"}:
        return contents, kind, image.size
    if image.width > width:
        image = image.convert("RGB").resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    if kind == "jpeg":
        image.convert("RGB").save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    else:  # plots have few colours: a palette keeps the lines sharp at a third of the size
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue(), kind, image.size
