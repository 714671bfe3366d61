"""A report as Markdown, with links to the run's pictures, and as one HTML page that contains everything it shows."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image, UnidentifiedImageError

from gradnorm_plugin.files import read_bytes
from gradnorm_plugin.names import one_line
from gradnorm_plugin.report.blocks import Block, Cell, Gallery, Missing, Picture, Report
from gradnorm_plugin.report.wording import Wording

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


def _html(cell: Cell) -> Markup:
    if isinstance(cell, str):
        return escape(one_line(cell))
    return Markup("").join(Markup("<code>{}</code>").format(s.text) if s.code else escape(s.text) for s in cell)


def _markdown(cell: Cell) -> str:
    if isinstance(cell, str):
        return _BLOCK.sub(r"\1\\\2", _escaped(one_line(cell)))
    return _BLOCK.sub(r"\1\\\2", "".join(_code(span.text) if span.code else _escaped(span.text) for span in cell))


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


@dataclass(frozen=True)
class _Embedded:
    """A picture for `<img src>` and its size in pixels."""

    source: str
    width: int
    height: int


def _embedded(report: Report, say: Wording) -> dict[Path, _Embedded | Missing]:
    """Every picture of the report, or the line that stands in its place: it cannot be read, or there is no room for it."""
    files = [picture.file for section in report.sections for picture in _pictures(section.blocks)]
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


def _pictures(blocks: Iterable[Block]) -> Iterator[Picture]:
    for block in blocks:
        if isinstance(block, Picture):
            yield block
        elif isinstance(block, Gallery):
            yield from block.pictures


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
