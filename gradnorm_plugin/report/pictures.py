"""Pictures as text that a page can hold: scaled down where they are larger than a page shows, within a limit for all of them."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

from gradnorm_plugin.files import read_bytes
from gradnorm_plugin.report.blocks import Block, Gallery, Missing, Picture, Report
from gradnorm_plugin.report.wording import Wording

LIMIT = 3_300_000
"""Bytes of all pictures together; base64 adds a third, so a page stays below 5 MB."""
WIDTHS = (1600, 1200, 900)
"""Largest width in pixels that is tried, then smaller ones if the limit does not hold."""
JPEG_QUALITY = 82


@dataclass(frozen=True)
class Embedded:
    """A picture for `<img src>` and its size in pixels."""

    source: str
    width: int
    height: int


def embed_all(report: Report, say: Wording) -> dict[Path, Embedded | Missing]:
    """Every picture of the report, or the line that stands in its place: it cannot be read, or has no room."""
    files = [picture.file for section in report.sections for picture in _pictures(section.blocks)]
    for width in WIDTHS:
        encoded = {file: _encode(file, width, say) for file in files}
        if sum(len(found[0]) for found in encoded.values() if not isinstance(found, Missing)) <= LIMIT:
            break
    room, embedded = LIMIT, {}
    for file, found in encoded.items():
        if not isinstance(found, Missing):
            contents, kind, size = found
            room -= len(contents)
            source = f"data:image/{kind};base64,{base64.b64encode(contents).decode('ascii')}"
            found = Embedded(source, *size) if room >= 0 else Missing(say("missing.too_large", file=file.name))
        embedded[file] = found
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
        with Image.open(BytesIO(contents)) as image:
            image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return Missing(say("missing.picture", file=file.name, reason=error))
    kind = "jpeg" if image.format == "JPEG" else "png"
    if image.width <= width and image.format in {"JPEG", "PNG"}:
        return contents, kind, image.size
    if image.width > width:
        image = image.convert("RGB").resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    if kind == "jpeg":
        image.convert("RGB").save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    else:  # a plot has few colours: a palette keeps its lines sharp at a third of the size
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue(), kind, image.size
