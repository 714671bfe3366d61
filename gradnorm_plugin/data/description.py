"""What a data yaml says about image classes, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class DescriptionError(ValueError):
    """The data yaml, or what it points at, cannot be used; the message says why and what to do."""


def classification_names(data: Mapping[str, Any]) -> dict[int, str]:
    """The image classes {0: name, 1: name, ...} of a data yaml's content, given there as such a mapping or as a list.

    Raises:
        DescriptionError: if they are missing, not numbered 0, 1, 2, ..., not text, or not different.
    """
    key = "classification_names"
    found = data.get(key)
    if not found:
        raise DescriptionError(
            f"the data yaml has no `{key}`: add for instance `{key}: {{0: PSAX, 1: PLAX}}`, a name for each image class"
        )
    if isinstance(found, (list, tuple)):
        found = dict(enumerate(found))
    if not isinstance(found, Mapping):
        raise DescriptionError(f"`{key}` of the data yaml is {found!r}: write a list, or {{0: name, 1: name, ...}}")
    if any(type(index) is not int for index in found) or sorted(found) != list(range(len(found))):
        numbers = ", ".join(str(index) for index in found)
        raise DescriptionError(f"`{key}` of the data yaml is numbered {numbers}: number the classes 0, 1, 2, ...")
    names = {index: found[index] for index in sorted(found)}
    for index, name in names.items():
        if not isinstance(name, str) or not name.strip():
            raise DescriptionError(f"`{key}` of the data yaml has {name!r} at {index}, which is no name: quote it as text")
    if len(set(names.values())) < len(names):
        raise DescriptionError(f"`{key}` of the data yaml has a name twice ({', '.join(names.values())}): rename one")
    return names
