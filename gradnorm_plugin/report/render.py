"""One report, two forms: Markdown with links to the run's pictures, and a page of HTML that holds everything itself."""

from __future__ import annotations

import os
import re
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from gradnorm_plugin.names import one_line
from gradnorm_plugin.report.blocks import Cell, Report
from gradnorm_plugin.report.pictures import embed_all
from gradnorm_plugin.report.wording import Wording

LANGUAGE_TAGS = {"en": "en", "zh-TW": "zh-Hant-TW"}
# Punctuation that Markdown may read as markup, wherever it stands in a line or a table's cell.
_MARKDOWN = re.compile(r"([\\`*\[\]|~$])")
_AUTOLINK = re.compile(r"(?i)(?:(?<=http)|(?<=https)|(?<=ftp)):(?=//)|(?<=\bwww)\.|@")
"""What GitHub makes a link of by itself: an address, also of mail."""
_BLOCK = re.compile(r"^(\d*)([#+-](?=[# ]|$)|[.)](?= |$))")
"""What begins a heading or a list where it begins a line."""
_UNDERSCORE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")


def render_html(report: Report, say: Wording) -> str:
    """The page: style and pictures inside, nothing fetched."""
    environment = _environment(autoescape=True)
    environment.filters["inline"] = _html
    style = Markup((files("gradnorm_plugin.report") / "templates" / "style.css").read_text(encoding="utf-8"))
    template = environment.get_template("report.html.jinja")
    pictures = embed_all(report, say)
    return template.render(report=report, say=say, pictures=pictures, style=style, language=LANGUAGE_TAGS[report.language])


def render_markdown(report: Report, say: Wording, folder: Path) -> str:
    """The same in Markdown, for a file in `folder`."""
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
    """A code span; a value that could end it, or a table's cell, is written as plain text."""
    return _escaped(text) if set(text) & set("`|\\") else f"`{text}`"


def _link(file: Path, folder: Path) -> str:
    try:
        return quote(Path(os.path.relpath(file, folder)).as_posix())
    except ValueError:  # another drive
        return file.resolve().as_uri()
