"""`yolov5-gradnorm convert`: labels of other formats, and a class for each image, into a joint data set."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from gradnorm_plugin.convert import split, summary
from gradnorm_plugin.convert.geometry import to_record
from gradnorm_plugin.convert.images import ImageIndex, Picture, read_pictures
from gradnorm_plugin.convert.oddities import Kind, Oddities
from gradnorm_plugin.convert.options import parse_options
from gradnorm_plugin.convert.places import find_images
from gradnorm_plugin.convert.records import Annotation, ConversionError, Source, shown
from gradnorm_plugin.convert.sources import fixed_split, image_classes, read_source, whole_split
from gradnorm_plugin.convert.write import REPORT, Sample, check_place, write_dataset
from gradnorm_plugin.labels import LabelRecord
from gradnorm_plugin.terminal import fail


def main(argv: Sequence[str] | None = None) -> None:
    """Convert with the flags of `argv` (default: the command line's). Ends with status 1 and one message on bad input."""
    options = parse_options(argv)
    try:
        report = convert(options)
    except ConversionError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename or options.out}: {error.strerror or error}: nothing was converted")
    encoding = sys.stdout.encoding or "utf-8"
    print(report.encode(encoding, "backslashreplace").decode(encoding))


def convert(options: argparse.Namespace) -> str:
    """Convert as the options say; what the result holds and what was odd, for the screen.

    Raises:
        ConversionError: if nothing can be converted; nothing has been written then.
        OSError: if a folder cannot be read or written; the same.
    """
    oddities = Oddities()
    given = [options.source, options.images, options.annotations, options.classes_csv, *(options.split or ())]
    given = [place for place in given if place is not None]
    for place in given:
        if not place.exists():
            raise ConversionError(f"{place} is not there: name an existing file or folder")
    index = find_images(options.source, options.images)
    check_place(options.out, [*given, index.root], options.overwrite)
    source = read_source(options, index, oddities)
    names = options.names or source.names
    if not names:
        raise ConversionError(f"{shown(options.source)} has no box with a class: {_first_reason(oddities)}")
    pictures = _usable(source, index, oddities)
    fixed = fixed_split(options, source, list(pictures), index, oddities)
    images = list(pictures) if fixed is None else sorted(image for part in fixed.values() for image in part)
    classification_names, class_of = image_classes(options, source, images, index, oddities)
    splits = whole_split(options, fixed, images, class_of, pictures, oddities)
    split.check(splits, pictures, index, oddities)
    called = _result_names(images, index, oddities)
    records = {image: _record(image, source, pictures[image], names, class_of.get(image), index, oddities) for image in images}
    samples = {
        part: [Sample(image, called[image], records[image], pictures[image].ended) for image in splits[part]] for part in splits
    }
    rows = summary.count(samples, names, classification_names, oddities)
    reports = {REPORT: summary.to_markdown(rows, oddities), "conversion.csv": oddities.csv()}
    write_dataset(options.out, samples, names, classification_names, reports, options.link)
    return f"{summary.to_text(rows)}\n\n{oddities.table()}\n\nwritten: {shown(options.out / 'data.yaml')}, {', '.join(reports)}"


def _usable(source: Source, index: ImageIndex, oddities: Oddities) -> dict[Path, Picture]:
    """The images that can be used, and what is in each."""
    wanted = [image for image in index.files if image not in source.faulty and (source.complete or image in source.annotations)]
    usable = {}
    for image, picture in read_pictures(wanted).items():
        if isinstance(picture, str):
            oddities.add(Kind.UNREADABLE_IMAGE, index.key(image), picture)
        else:
            usable[image] = picture
    if not usable:
        raise ConversionError(f"no image is left to convert: {_first_reason(oddities)}")
    return usable


def _first_reason(oddities: Oddities) -> str:
    if not oddities.cases:
        return "its annotations have no objects"
    first = oddities.cases[0]
    return f"{first.kind.title}: {first} ({len(oddities.of(first.kind))} of this kind)"


def _result_names(images: Sequence[Path], index: ImageIndex, oddities: Oddities) -> dict[Path, str]:
    """The file name of each image in the result: its own, unless another has its stem and would share its label file."""
    stems = Counter(image.stem.casefold() for image in images)
    called, taken = {}, {stem for stem, count in stems.items() if count == 1}
    for image in images:
        called[image] = image.name
        if stems[image.stem.casefold()] > 1:
            stem = index.key(image).replace("/", "-").replace(".", "-")
            while stem.casefold() in taken:
                stem += "-"
            taken.add(stem.casefold())
            called[image] = f"{stem}{image.suffix}"
            oddities.add(Kind.SAME_NAME, index.key(image), called[image])
    return called


def _record(
    image: Path,
    source: Source,
    picture: Picture,
    names: Sequence[str],
    image_class: int | None,
    index: ImageIndex,
    oddities: Oddities,
) -> LabelRecord:
    annotation: Annotation | None = source.annotations.get(image)
    if not picture.ended:
        oddities.add(Kind.NO_END, index.key(image))
    if annotation is None:
        oddities.add(Kind.BACKGROUND, index.key(image))
        return LabelRecord(image_class=image_class)
    if not annotation.objects:
        oddities.add(Kind.NO_OBJECTS, annotation.where)
    return to_record(annotation, picture, names, image_class, oddities)
