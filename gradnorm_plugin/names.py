"""Making text from outside, such as names of classes and files, harmless for the place where it ends up."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_BIDI = re.compile(r"[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Characters that change the direction of what follows, so that a line can read as something it is not."""
_COLOUR = re.compile(r"(\x1b\[[0-9;]*m)")
_NOT_IN_FOLDER_NAMES = re.compile(r'[\x00-\x1f\x7f-\x9f\ud800-\udfff<>:"/\\|?*]|^\.+$|[. ]+$|^ +')
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
_SECRETS = re.compile(r"(?<=://)(?:[^/?#\s]*@)?([^?#\s]*)(?:[?#][^\s'\"]*)?")
_FORMULA = tuple("=+-@\t\r\n＝＋－＠")
_LONGEST_FOLDER = 120
"""Bytes; most file systems take 255, and something may be added to it."""


def one_line(value: Any) -> str:
    """A value's text in one line, without control characters or any that reorder what is shown."""
    return _BIDI.sub("", _BREAKS.sub(" ", str(value))).strip()


def without_secrets(text: str) -> str:
    """A text whose URLs are stripped of user name, password, query and fragment."""
    return _SECRETS.sub(r"\1", text)


def address_path(address: str) -> str:
    """The path in an address; the whole text where it is no address that can be read, such as `http://[x/1.png`."""
    try:
        return urlsplit(address).path
    except ValueError:
        return address


def on_screen(text: str) -> str:
    """Lines of text with terminal control sequences, except colours, written as escapes (`\\x1b]0;title` changes no title), and
    URLs without secrets."""
    pieces = _COLOUR.split(without_secrets(text))
    return "".join(piece if index % 2 else _visible(piece) for index, piece in enumerate(pieces))


def shortened(value: Any, most: int) -> str:
    """A value in one line of at most `most` characters, the last of them an ellipsis where something was cut off."""
    text = one_line(value)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def csv_row(values: Iterable[Any]) -> list[Any]:
    """The cells of a row. Text that a spreadsheet would take for a formula (`=1+2`, `@SUM`) is prefixed with an apostrophe;
    numbers, also signed ones, stay as they are."""
    return [f"'{value}" if isinstance(value, str) and _is_formula(value) else value for value in values]


def folder_name(name: str) -> str:
    """A folder's name for `name`, on every system: no path, no device, not too long."""
    clean = _BIDI.sub("", _NOT_IN_FOLDER_NAMES.sub("_", name))
    if _DEVICES.match(clean):
        clean = f"_{clean}"
    if len(clean.encode()) > _LONGEST_FOLDER:  # a digest keeps long names with the same beginning distinct
        kept = clean.encode()[: _LONGEST_FOLDER - 9].decode(errors="ignore")
        clean = f"{kept}-{hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()[:8]}"
    return clean or "_"


def folder_names(names: Iterable[str]) -> dict[str, str]:
    """A folder name for each name, all different even without regard to case: `a/b` beside `a_b` is `a_b-2`."""
    folders: dict[str, str] = {}
    taken: set[str] = set()
    for name in sorted(dict.fromkeys(names), key=lambda name: folder_name(name) != name):  # those that can stay as they are first
        plain = folder = folder_name(name)
        count = 1
        while folder.casefold() in taken:
            count += 1
            folder = f"{plain}-{count}"
        taken.add(folder.casefold())
        folders[name] = folder
    return folders


def _visible(text: str) -> str:
    return "".join(
        c if c in "\n\t" or not (unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"} or _BIDI.match(c)) else ascii(c)[1:-1]
        for c in text
    )


def _is_formula(text: str) -> bool:
    if not text.startswith(_FORMULA):
        return False
    try:
        float(text)
    except ValueError:
        return True
    return False
