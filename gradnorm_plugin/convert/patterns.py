"""What a regular expression takes from the names of the image files: the class, or the group that a split keeps together."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from gradnorm_plugin.convert.annotations import clean_name
from gradnorm_plugin.convert.image_files import ImageIndex


def read_pattern(text: str) -> re.Pattern[str]:
    """The regular expression that a flag is followed by; the name is in its group `(?P<name>...)` or only group, else all of it.

    Raises:
        argparse.ArgumentTypeError: saying what is wrong.
    """
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from None
    if pattern.groups > 1 and len(pattern.groupindex) != 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} has {pattern.groups} groups: name the one that counts (?P<name>...), write (?:...) for the others"
        )
    return pattern


def from_pattern(pattern: re.Pattern[str], index: ImageIndex) -> dict[Path, str]:
    """What the pattern finds for each image that it fits.

    It is looked for in the file name; a pattern with a `/` in the path below the images' folder.
    """
    group = next(iter(pattern.groupindex), min(pattern.groups, 1))
    found = {}
    for image in index.files:
        match = pattern.search(index.key(image) if "/" in pattern.pattern else image.name)
        if match and (name := clean_name(match.group(group))):
            found[image] = name
    return found
