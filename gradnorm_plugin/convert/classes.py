"""The class of each image: where it is looked up, and which classes are kept."""

from __future__ import annotations

import argparse
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from gradnorm_plugin.convert.boxes import as_text, clean_name, split_names
from gradnorm_plugin.convert.image_files import ImageIndex, split_of_name
from gradnorm_plugin.convert.oddities import ConversionError, Kind
from gradnorm_plugin.convert.source import Source
from gradnorm_plugin.convert.tables import agreed, class_column, image_column, named_column, read_table
from gradnorm_plugin.outputs import CLASS

_NO_CLASS_FOLDERS = {"images", "image", "imgs", "img", "jpegimages", "jpgimages", "pictures", "pics", "photos", "frames"}
_OF_OUTPUT = {  # what a case is where the classes are not those of `classification_names`
    Kind.NO_CLASS: Kind.NO_LINE,
    Kind.SEVERAL_CLASSES: Kind.SEVERAL_IN_ONE,
    Kind.NOT_CHOSEN: Kind.NOT_LISTED,
    Kind.RARE: Kind.RARE_NAME,
    Kind.EMPTY_CLASS: Kind.UNUSED_NAME,
}

Named = Mapping[Path, Sequence[str]]
"""The class names given for each image."""


def image_classes(options: argparse.Namespace, source: Source, images: Sequence[Path]) -> tuple[list[str], dict[Path, int]]:
    """The names of the image classes, and the index of the class of each image."""
    named: Named | None
    if options.class_pattern:
        named = {image: [name] for image, name in from_pattern(options.class_pattern, source.index).items()}
    elif options.classes_csv and options.classes_from in (None, "csv") and not options.output:
        named = _from_table(options, source)
    elif options.classes_from == "folder":
        named = _from_folders(source.index)
    else:
        named = _from_entries(options, source) if source.image_classes is None else source.image_classes
    advice = _other_sources(options)
    if named is None:
        there = ", ".join(source.entry_keys()) or "none"
        under = f" under `{options.class_key}` (there are {there})" if options.class_key else ""
        raise ConversionError(f"the annotations name no class of any image{under}: {advice}")
    return settle(images, named, options.image_class, source.image_class_order, options.min_images, source, advice)


def from_pattern(pattern: re.Pattern[str], index: ImageIndex) -> dict[Path, str]:
    """What the pattern captures, for each image it matches.

    It is matched against the file name, or, if it contains a `/`, the path below the image folder.
    """
    group = next(iter(pattern.groupindex), min(pattern.groups, 1))
    found = {}
    for image in index.files:
        match = pattern.search(index.key(image) if "/" in pattern.pattern else image.name)
        if match and (name := clean_name(match.group(group))):
            found[image] = name
    return found


def _from_table(options: argparse.Namespace, source: Source) -> Named:
    """The class names of each image that has a row in the table."""
    both = "name both by --csv-columns IMAGE CLASS"
    given = options.csv_columns
    of_class = named_column(given[1], "correct --csv-columns", "the class") if given else class_column(both)
    named: dict[Path, list[str]] = {}
    said: dict[Path, list[tuple[str, set[str]]]] = defaultdict(list)
    table = read_table(options, source, image_column(options, both), lambda header: [of_class])
    place = table.place(of_class)
    for image, where, cells in table.rows:
        names = split_names(cells[place], options.image_class)
        named.setdefault(image, []).extend(names)
        if names:
            said[image].append((where, set(names)))
    agreed(said, source, lambda one, other: f"is {_listed(one)} in one row and {_listed(other)} in the other")
    return named


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _from_folders(index: ImageIndex) -> Named:
    """The nearest folder name above each image that is neither a split nor a generic name such as `images`."""
    named = {}
    for image in index.files:
        folders = (clean_name(folder) for folder in reversed(Path(index.key(image)).parent.parts))
        candidates = (name for name in folders if name and not split_of_name(name) and name.lower() not in _NO_CLASS_FOLDERS)
        named[image] = list(itertools.islice(candidates, 1))
    return named


def _from_entries(options: argparse.Namespace, source: Source) -> Named | None:
    """The class, a text or a list of texts, in each image's own entry; None if no entry has one."""
    if source.rival_keys and not options.class_key:
        raise ConversionError(f"{', '.join(source.rival_keys)} may be the image's class: say which by --class-key KEY")
    named: dict[Path, list[str]] = {}
    for image, rows in source.entries.items():
        for _, entry in rows:
            keys = [options.class_key] if options.class_key else source.class_keys
            given = next((entry[key] for key in keys if entry.get(key) is not None), None)
            if given is None:
                continue
            texts = filter(None, map(as_text, given if isinstance(given, list) else [given]))
            names = [name for text in texts for name in split_names(text, options.image_class)]
            before = named.setdefault(image, [])
            before += [name for name in names if name not in before] if before else names
    return named or None


def _other_sources(options: argparse.Namespace) -> str:
    """Advice: the other flags that could supply the classes."""
    found = [] if options.classes_csv else ["--classes-csv FILE"]
    found += [] if options.classes_from == "folder" else ["--classes-from folder"]
    found += [] if options.class_pattern else ["--class-pattern REGEX"]
    found += [] if options.class_key else ["the annotations' own entries with --class-key KEY"]
    return f"name {'another' if len(found) < 4 else 'a'} source of the classes: {', '.join(found)}"


def settle(
    images: Iterable[Path],
    named: Named,
    chosen: Sequence[str],
    order: Sequence[str],
    min_images: int,
    source: Source,
    advice: str,
    output: str = CLASS,
) -> tuple[list[str], dict[Path, int]]:
    """The names of the classes that are kept, and the index of the class of each image that has one.

    `output` names the image output they belong to. Classes are ordered as in `chosen`, else `order`, else alphabetically.
    """

    def note(kind: Kind, where: str | Path, detail: str = "") -> None:
        if output != CLASS:
            kind, detail = _OF_OUTPUT.get(kind, kind), f"{output}: {detail}" if detail else output
        source.note(kind, where, detail)

    single: dict[Path, str] = {}
    for image in images:
        names = list(dict.fromkeys(named.get(image, ())))
        if len(names) < len(named.get(image, ())):
            note(Kind.REPEATED_CLASS, image, ", ".join(named[image]))
        if not names:
            note(Kind.NO_CLASS, image)
        elif len(names) > 1:
            note(Kind.SEVERAL_CLASSES, image, ", ".join(names))
        elif chosen and names[0] not in chosen:
            note(Kind.NOT_CHOSEN, image, names[0])
        else:
            single[image] = names[0]
    counts = Counter(single.values())
    for image, name in single.items():
        if counts[name] < min_images:
            note(Kind.RARE, image, f"{name}, {counts[name]} of at least {min_images} images")
    for name in chosen or order:
        if not counts[name]:
            note(Kind.EMPTY_CLASS, name)
    ranked = list(chosen) or [name for name in order if name in counts] + sorted(counts.keys() - set(order))
    kept = [name for name in ranked if counts[name] >= min_images]
    if not kept:
        raise nothing_left(
            f"{'' if output == CLASS else f'`{output}`: '}no image class is left; images that have just one class: "
            f"{most_common(counts)}; a class needs {min_images} (--min-images)", advice, source,
        )  # fmt: skip
    if len(kept) == 1:
        note(Kind.ONE_CLASS, kept[0], f"{counts[kept[0]]} images")
    for group in alike(kept, counts):
        note(Kind.ALIKE, group)
    return kept, {image: kept.index(name) for image, name in single.items() if name in kept}


def most_common(counts: Counter[str]) -> str:
    """The most frequent names with their counts, for a message."""
    return ", ".join(f"{name} {count}" for name, count in counts.most_common(10)) or "none"


def nothing_left(what: str, advice: str, source: Source) -> ConversionError:
    """The error that everything was dropped, with the oddities that cost most."""
    return ConversionError(f"{what}: {'. '.join(filter(None, [advice, source.oddities.first()]))}")


def alike(names: Iterable[str], counts: Mapping[str, int]) -> list[str]:
    """Groups of names that differ only in case, each as one text with counts."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[name.casefold()].append(name)
    return [", ".join(f"{name} ({counts[name]})" for name in group) for group in groups.values() if len(group) > 1]
