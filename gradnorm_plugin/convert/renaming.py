"""`--rename old=new`: box classes renamed, and merged where several get one name."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from difflib import get_close_matches

from gradnorm_plugin.convert.annotations import Source, clean_name
from gradnorm_plugin.convert.oddities import ConversionError


def read_renaming(text: str) -> tuple[str, str]:
    """The old and the new name that one `--rename` is followed by.

    Raises:
        argparse.ArgumentTypeError: if they are not two names.
    """
    old, _, new = text.rpartition("=")
    names = clean_name(old), clean_name(new)
    if names[0] is None or names[1] is None:
        raise argparse.ArgumentTypeError(f"{text!r}: write OLD=NEW, such as rbc=RBC")
    return names[0], names[1]


def rename(source: Source, wishes: Sequence[tuple[str, str]]) -> None:
    """Give the box classes of the source their new names, all at once; the first of those that become one gives the place.

    Raises:
        ConversionError: if the source has no class of an old name.
    """
    new = dict(wishes)
    for old in new:
        if old not in source.names:
            close = get_close_matches(old, source.names, 1, 0.5) or [
                name for name in source.names if name.casefold() == old.casefold()
            ]
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ConversionError(
                f"--rename {old}={new[old]}: there is no box class {old} (there are {', '.join(source.names) or 'none'}){hint}"
            )
    source.names = list(dict.fromkeys(new.get(name, name) for name in source.names))
    for annotation in source.annotations.values():
        annotation.objects = [thing._replace(name=new.get(thing.name, thing.name)) for thing in annotation.objects]
