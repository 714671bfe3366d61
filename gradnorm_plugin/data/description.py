"""What a data yaml says about places and names, checked before upstream reads it."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from reprlib import repr as short
from typing import Any

from gradnorm_plugin.outputs import OutputError, Outputs, class_output, read_outputs
from gradnorm_plugin.reading import OUTPUTS_KEY, DescriptionError

NAME_KEYS = ("names", "classification_names")
LONGEST_NAME = 200
"""Characters; a longer name would fit neither a table nor the name of a file."""


def image_outputs(data: Mapping[str, Any]) -> Outputs:
    """The image outputs of a data yaml's content: that of its `classification_names`, then those under `image_outputs`.

    Raises:
        DescriptionError: if there are none, or one is not as it should be.
    """
    names, described = data.get("classification_names"), data.get(OUTPUTS_KEY)
    found: Outputs = (class_output(classification_names(data)),) if names or described is None else ()
    if described is not None:
        try:
            found += read_outputs(described)
        except OutputError as error:
            raise DescriptionError(f"the data yaml: {error}") from None
    for output in found:
        for index, name in enumerate(output.rows):
            _check_name(f"{OUTPUTS_KEY}: {output.name}", index, name)
    if len({output.name for output in found}) < len(found):
        raise DescriptionError("`image_outputs` of the data yaml has `class`, which is that of `classification_names`: rename it")
    return found


def classification_names(data: Mapping[str, Any]) -> dict[int, str]:
    """The image classes {0: name, 1: name, ...} of a data yaml's content, given there as such a mapping or as a list.

    Raises:
        DescriptionError: if they are missing, not numbered 0, 1, 2, ..., not text, or not different.
    """
    key = "classification_names"
    found = data.get(key)
    if not found:
        raise DescriptionError(
            f"the data yaml has no `{key}`: add for instance `{key}: {{0: PSAX, 1: PLAX}}`, a name for each image class, or "
            f"`{OUTPUTS_KEY}` (docs/labels.md)"
        )
    if isinstance(found, (list, tuple)):
        found = dict(enumerate(found))
    _check_numbers(key, found)
    names = {index: found[index] for index in sorted(found)}
    for index, name in names.items():
        _check_name(key, index, name)
    if len(set(names.values())) < len(names):
        raise DescriptionError(f"`{key}` of the data yaml has a name twice ({', '.join(names.values())}): rename one")
    return names


def check_description(data: Any) -> None:
    """Refuse what upstream would stumble over in a data yaml's content: places that are no text, names that are no names.

    What is missing altogether is left to upstream, which says so.

    Raises:
        DescriptionError: naming the key and what to write there.
    """
    if not isinstance(data, Mapping):
        raise DescriptionError("the data yaml holds no `key: value` lines: write `train`, `val` and `names` as YOLOv5's own do")
    for key in ("path", "train", "val", "test", "download"):
        found = data.get(key)
        places = found if isinstance(found, list) and key in ("train", "val", "test") else [found]
        if any(place is not None and not isinstance(place, str) for place in places):
            raise DescriptionError(f"`{key}` of the data yaml is {short(found)}: write text (quote it if it looks like a number)")
        if any("\0" in place for place in places if place):
            raise DescriptionError(f"`{key}` of the data yaml is {short(found)}: no file name has the character U+0000")
    if "names" not in data:
        return
    names = dict(enumerate(data["names"])) if isinstance(data["names"], list) else data["names"]
    _check_numbers("names", names)
    if not names:
        raise DescriptionError("`names` of the data yaml is empty: give a name for each class of the boxes")
    for index, name in names.items():
        _check_name("names", index, name)


def _check_name(key: str, index: int, name: Any) -> None:
    """Refuse what would be no name, or break the tables, logs and files that name the class."""
    where = f"`{key}` of the data yaml has {short(name)} at {index}"
    if not isinstance(name, str) or not name.strip():
        raise DescriptionError(f"{where}, which is no name: quote it as text")
    strange = next((letter for letter in name if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")), None)
    if strange is not None:
        raise DescriptionError(f"{where} with the character U+{ord(strange):04X}: a name is one line of letters, remove it")
    if len(name) > LONGEST_NAME:
        raise DescriptionError(f"{where} with {len(name)} characters: shorten it to {LONGEST_NAME}")


def _check_numbers(key: str, names: Any) -> None:
    """Refuse names that are not {0: name, 1: name, ...}."""
    if not isinstance(names, Mapping):
        raise DescriptionError(f"`{key}` of the data yaml is {short(names)}: write a list, or {{0: name, 1: name, ...}}")
    if any(type(index) is not int for index in names) or sorted(names) != list(range(len(names))):
        numbers = ", ".join(str(index) for index in names)
        raise DescriptionError(f"`{key}` of the data yaml is numbered {numbers}: number the classes 0, 1, 2, ...")
