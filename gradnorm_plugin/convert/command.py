"""`yolov5-gradnorm convert`: its flags, and the steps from the source to the joint data set."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradnorm_plugin.convert.boxes import READINGS, to_record
from gradnorm_plugin.convert.drawing import groups_of
from gradnorm_plugin.convert.flags import add_group_flags, add_table_flags, check_group_flags, read_pattern
from gradnorm_plugin.convert.formats import FORMATS, read_source
from gradnorm_plugin.convert.image_files import Picture, find_images, read_pictures
from gradnorm_plugin.convert.image_labels import image_labels
from gradnorm_plugin.convert.image_outputs import FORM, read_wish
from gradnorm_plugin.convert.masks import read_mask_class
from gradnorm_plugin.convert.oddities import ConversionError, Kind, shown
from gradnorm_plugin.convert.source import CLASS_KEYS, Source, read_renaming, rename
from gradnorm_plugin.convert.split import DEFAULT_VAL_SHARE, check_split, fixed_split, whole_split
from gradnorm_plugin.convert.write import REPORT, Sample, check_place, content_text, count_content, report_text, write_dataset
from gradnorm_plugin.labels import LabelRecord
from gradnorm_plugin.outputs import CLASS, OUTPUT_KINDS
from gradnorm_plugin.terminal import fail, parse


def build_parser() -> argparse.ArgumentParser:
    """The parser of `yolov5-gradnorm convert`."""
    parser = argparse.ArgumentParser(
        prog="yolov5-gradnorm convert",
        description="Convert VOC, COCO, YOLO, CVAT or Label Studio labels, or masks, plus a class per image, to joint labels.",
    )
    several: dict[str, Any] = {"nargs": "+", "action": "extend", "default": []}
    add = parser.add_argument
    add("source", type=Path, metavar="SOURCE", help="data folder (or COCO's .json, or YOLO's data yaml)")
    add("out", type=Path, metavar="OUT", help="folder to create")
    add("--format", choices=FORMATS, help="default: detected from the files")
    add("--images", type=Path, metavar="DIR", help="image folder (default: JPEGImages, or below SOURCE)")
    add("--annotations", type=Path, metavar="PATH", help="annotation folder or file")
    add("--names", nargs="+", default=[], metavar="NAME", help="box classes in this order; others are dropped")
    renaming = "rename box classes; those with the same new name are merged"
    add("--rename", **several, type=read_renaming, metavar="OLD=NEW", help=renaming)
    values = "class names for a mask's grey values, palette indices or colours: 1=RBC 2=WBC, '#ff0000=RBC'"
    add("--mask-classes", **several, type=read_mask_class, metavar="VALUE=NAME", help=values)
    add("--polygons", action="store_true", help="keep single-part outlines instead of boxes")
    add("--boxes", choices=READINGS, help="meaning of the four numbers of COCO's boxes (default: detected)")
    add("--drop-difficult", action="store_true", help="drop boxes that Pascal VOC marks as difficult")
    add("--overwrite", action="store_true", help="replace OUT if convert wrote it")
    _add_classes(parser.add_argument_group("the image's class"))
    _add_split(parser.add_argument_group("split (default: the source's own, else random, stratified by class)"))
    return parser


def _add_classes(group: argparse._ArgumentGroup) -> None:
    add_table_flags(group)
    add = group.add_argument
    wish = (
        f"an image output by name, from a column of the CSV file (else a key of COCO's images entries); kinds: "
        f"{', '.join(OUTPUT_KINDS)}; repeatable: --output view=View --output finding=Findings:labels "
        "--output ef=EF:value:percent:0:100"
    )
    add("--output", action="append", default=[], type=read_wish, metavar=FORM, help=wish)
    places = (
        "folder: the name of the image's folder; annotations (or json, labels): their image-level entries, such as COCO's "
        "images, tags, choices, one-hot lines (default: csv with --classes-csv, else annotations)"
    )
    add("--classes-from", choices=["csv", "folder", "json", "labels", "annotations"], help=places)
    pattern = "its group's match in the image's file name: '(PLAX|PSAX)_' (matches the path if it contains a /)"
    add("--class-pattern", type=read_pattern, metavar="REGEX", help=pattern)
    key = (
        f"where the annotations hold the class: a key of COCO's images entries (default: first of {', '.join(CLASS_KEYS)}), an "
        "attribute of CVAT's tags (default: their labels), a choice of Label Studio (default: the only one)"
    )
    add("--class-key", "--json-key", metavar="KEY", help=key)
    add("--image-class", nargs="+", default=[], metavar="NAME", help="image classes in this order; others are left out")
    add("--min-images", type=int, default=2, metavar="N", help="drop image classes with fewer images (default: 2)")


def _add_split(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--split", nargs="+", type=Path, metavar="FILE", help="lists of images: train.txt val.txt [test.txt]")
    add("--val-share", type=float, metavar="SHARE", help=f"draw a split with this share for val (default: {DEFAULT_VAL_SHARE})")
    add("--test-share", type=float, metavar="SHARE", help="draw a split with this share for test (default: 0)")
    add_group_flags(group)
    add("--seed", type=int, default=0, help="seed of the split (default: 0)")
    linking = "link the images instead of copying them (symlink if nothing follows)"
    add("--link", nargs="?", const="symlink", choices=["symlink", "hardlink"], help=linking)


def parse_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse and check the command line. Errors end the program as argparse does: one line, status 2."""
    parser = build_parser()
    options = parse(parser, argv)
    for flag, names in (("--names", options.names), ("--image-class", options.image_class)):
        if len(set(names)) < len(names) or not all(name.strip() and name.isprintable() for name in names):
            parser.error(f"{flag} must be different names, found {' '.join(names)!r}")
    if options.split and len(options.split) not in (2, 3):
        parser.error(f"--split takes two or three files: train.txt val.txt [test.txt], found {len(options.split)}")
    if options.split and (options.val_share is not None or options.test_share is not None):
        parser.error("--split gives a split, --val-share and --test-share draw one: leave one out")
    val, test = DEFAULT_VAL_SHARE if options.val_share is None else options.val_share, options.test_share or 0.0
    if not (0 < val < 1 and 0 <= test < 1 and val + test < 1):
        parser.error(f"--val-share {val} and --test-share {test} must leave something to train on, and to validate")
    if options.min_images < 1:
        parser.error(f"--min-images must be at least 1, found {options.min_images}")
    if not 0 <= options.seed < 2**32:
        parser.error(f"--seed must be from 0 to {2**32 - 1}, found {options.seed}")
    if options.classes_from == "csv" and not options.classes_csv:
        parser.error("--classes-from csv needs the file: --classes-csv FILE")
    check_group_flags(parser, options)
    renamed = [old for old, _ in options.rename]
    if len(set(renamed)) < len(renamed):
        parser.error(f"--rename gives {max(renamed, key=renamed.count)} two names: leave one out")
    wished = [wish.name.lower() for wish in options.output]
    if len(set(wished)) < len(wished):
        parser.error(f"--output {max(wished, key=wished.count)} is given twice: give each image output a name of its own")
    if options.csv_image and (options.csv_columns or not (options.output or options.group)):
        parser.error("--csv-image goes with --output and --group; --csv-columns IMAGE CLASS names the image's column already")
    _check_class_sources(parser, options, CLASS in wished)
    return options


def _check_class_sources(parser: argparse.ArgumentParser, options: argparse.Namespace, wished: bool) -> None:
    """Refuse two sources of the image's class; `wished`: an --output already is one."""
    places = {"--classes-from": options.classes_from not in (None, "csv"), "--class-pattern": options.class_pattern}
    if options.classes_csv and not (options.output or options.group):
        places = {"--classes-csv": True, **places}
    given = [flag for flag, value in places.items() if value]
    if wished:
        others = ("csv_columns", "classes_from", "class_key", "class_pattern", "image_class")
        given = [f"--output {CLASS}=..."] + [f"--{name.replace('_', '-')}" for name in others if getattr(options, name)]
    if len(given) > 1:
        parser.error(f"{given[0]} and {given[1]} are two sources of the class: leave one out")


def main(argv: Sequence[str] | None = None) -> None:
    """Convert as `argv` (default: the command line) says. Bad input ends the program with status 1 and one message."""
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
    """Convert as the options say; returns a summary of the result and the oddities for the screen.

    Raises:
        ConversionError: if nothing can be converted; nothing has been written then.
        OSError: if a folder cannot be read or written; the same.
    """
    given = [options.source, options.images, options.annotations, options.classes_csv, *(options.split or ())]
    given = [place for place in given if place is not None]
    for place in given:
        if not place.exists():
            raise ConversionError(f"{place} is not there: name an existing file or folder")
    index = find_images(options.source, options.images)
    check_place(options.out, [*given, index.root], options.overwrite)
    source = read_source(options, index)
    oddities = source.oddities
    rename(source, options.rename)
    names = options.names or source.names
    if not names:
        raise ConversionError(f"{shown(options.source)} has no box with a class: {oddities.first() or 'it names no objects'}")
    pictures = _usable(source)
    fixed = fixed_split(options, source, list(pictures))
    images = list(pictures) if fixed is None else sorted(image for part in fixed.values() for image in part)
    labels = image_labels(options, source, images)
    groups = groups_of(options, images, source)
    splits = whole_split(options, source, fixed, images, labels.strata(), pictures, groups)
    check_split(splits, labels, pictures, groups, source)
    called = _result_names(images, pictures, source)
    records = {image: labels.added_to(_objects(image, pictures[image], names, source), image) for image in images}
    if not any(record.boxes or record.polygons for record in records.values()):
        raise ConversionError(f"no box is left to convert: {oddities.first() or 'the annotations have no objects'}")
    samples = {part: [Sample(image, called[image], records[image], pictures[image]) for image in splits[part]] for part in splits}
    rows = count_content(samples, names, labels.outputs, oddities)
    reports = {REPORT: report_text(rows, oddities), "conversion.csv": oddities.csv()}
    write_dataset(options.out, samples, names, labels.outputs, reports, options.link)
    written = f"written: {shown(options.out / 'data.yaml')}, {', '.join(reports)}"
    lone = [case for case in oddities.cases if case.kind is Kind.ONE_CLASS]
    warnings = [f"\nWARNING: {case.kind.title}: {case}: {case.kind.action}" for case in lone]
    return "\n".join([content_text(rows), "", oddities.table(), "", written, *warnings])


def _usable(source: Source) -> dict[Path, Picture]:
    """The usable images, and what is in each."""
    index = source.index
    wanted = [image for image in index.files if image not in source.faulty and (source.complete or image in source.annotations)]
    usable, root = {}, index.root.resolve()
    for image, picture in read_pictures(wanted).items():
        if isinstance(picture, str):
            source.note(Kind.UNREADABLE_IMAGE, image, picture)
        else:
            usable[image] = picture
            if root not in (real := image.resolve()).parents:
                source.note(Kind.LINKED, image, str(real))
    if not usable:
        raise ConversionError(f"no image is left to convert: {source.oddities.first() or 'the annotations name none'}")
    return usable


def _result_names(images: Sequence[Path], pictures: Mapping[Path, Picture], source: Source) -> dict[Path, str]:
    """Each image's file name in the result: its own, unless another image has the same stem and would share its label file."""
    stems = Counter(image.stem.casefold() for image in images)
    called, taken = {}, {stem for stem, count in stems.items() if count == 1}
    for image in images:
        stem, suffix = image.stem, ".png" if pictures[image].deep else image.suffix
        if stems[stem.casefold()] > 1:
            stem = source.index.key(image).replace("/", "-").replace(".", "-")
            while stem.casefold() in taken:
                stem += "-"
            taken.add(stem.casefold())
            source.note(Kind.SAME_NAME, image, f"{stem}{suffix}")
        called[image] = f"{stem}{suffix}"
    return called


def _objects(image: Path, picture: Picture, names: Sequence[str], source: Source) -> LabelRecord:
    """The boxes or polygons of an image."""
    if picture.deep:
        source.note(Kind.DEEP, image, picture.deep)
    if not picture.ended:
        source.note(Kind.NO_END, image)
    annotation = source.annotations.get(image)
    if annotation is None:
        source.note(Kind.BACKGROUND, image)
        return LabelRecord()
    if not annotation.objects:
        source.note(Kind.NO_OBJECTS, annotation.where)
    return to_record(annotation, picture, names, source.oddities)
