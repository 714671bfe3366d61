"""`yolov5-gradnorm convert`: its flags, and the way from labels of other formats, and a class for each image, to the result."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from gradnorm_plugin.convert.annotations import CLASS_KEYS, Source, read_renaming, rename, to_record
from gradnorm_plugin.convert.coco import READINGS
from gradnorm_plugin.convert.flags import add_group_flags, add_table_flags, check_group_flags, read_pattern
from gradnorm_plugin.convert.formats import FORMATS, read_source
from gradnorm_plugin.convert.groups import groups_of
from gradnorm_plugin.convert.image_files import ImageIndex, Picture, find_images, read_pictures
from gradnorm_plugin.convert.image_outputs import FORM, image_labels, read_wish
from gradnorm_plugin.convert.masks import read_mask_class
from gradnorm_plugin.convert.oddities import ConversionError, Kind, Oddities, shown
from gradnorm_plugin.convert.split import (
    DEFAULT_VAL_SHARE,
    check_copies,
    check_groups,
    check_likeness,
    fixed_split,
    whole_split,
)
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
    parser.add_argument("source", type=Path, metavar="SOURCE", help="data folder (or COCO's .json, or YOLO's data yaml)")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to create")
    parser.add_argument("--format", choices=FORMATS, help="default: detected from the files")
    parser.add_argument("--images", type=Path, metavar="DIR", help="image folder (default: JPEGImages, or below SOURCE)")
    parser.add_argument("--annotations", type=Path, metavar="PATH", help="annotation folder or file")
    parser.add_argument("--names", nargs="+", default=[], metavar="NAME", help="box classes in this order; others are dropped")
    parser.add_argument(
        "--rename",
        nargs="+",
        action="extend",
        default=[],
        type=read_renaming,
        metavar="OLD=NEW",
        help="rename box classes; those with the same new name are merged",
    )
    parser.add_argument(
        "--mask-classes",
        nargs="+",
        default=[],
        type=read_mask_class,
        metavar="VALUE=NAME",
        help="class names for a mask's grey values, palette indices or colours: 1=RBC 2=WBC, '#ff0000=RBC'",
    )
    parser.add_argument("--polygons", action="store_true", help="keep single-part outlines instead of boxes")
    parser.add_argument("--boxes", choices=READINGS, help="meaning of the four numbers of COCO's boxes (default: detected)")
    parser.add_argument("--drop-difficult", action="store_true", help="drop boxes that Pascal VOC marks as difficult")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if convert wrote it")
    _add_classes(parser.add_argument_group("the image's class"))
    _add_split(parser.add_argument_group("split (default: the source's own, else random, stratified by class)"))
    return parser


def _add_classes(group: argparse._ArgumentGroup) -> None:
    add_table_flags(group)
    group.add_argument(
        "--output",
        action="append",
        default=[],
        type=read_wish,
        metavar=FORM,
        help=f"an image output by name, from a column of the CSV file (else a key of COCO's images entries); kinds: "
        f"{', '.join(OUTPUT_KINDS)}; repeatable: --output view=View --output finding=Findings:labels "
        "--output ef=EF:value:percent:0:100",
    )
    group.add_argument(
        "--classes-from",
        choices=["csv", "folder", "json", "labels", "annotations"],
        help="folder: the name of the image's folder; annotations (or json, labels): their image-level entries, such as COCO's "
        "images, tags, choices, one-hot lines (default: csv with --classes-csv, else annotations)",
    )
    group.add_argument(
        "--class-pattern",
        type=read_pattern,
        metavar="REGEX",
        help="its group's match in the image's file name: '(PLAX|PSAX)_' (matches the path if it contains a /)",
    )
    keys = ", ".join(CLASS_KEYS)
    group.add_argument(
        "--class-key",
        "--json-key",
        metavar="KEY",
        help=f"where the annotations hold the class: a key of COCO's images entries (default: first of {keys}), an attribute of "
        "CVAT's tags (default: their labels), a choice of Label Studio (default: the only one)",
    )
    group.add_argument(
        "--image-class", nargs="+", default=[], metavar="NAME", help="image classes in this order; others are left out"
    )
    group.add_argument("--min-images", type=int, default=2, metavar="N", help="drop image classes with fewer images (default: 2)")


def _add_split(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--split", nargs="+", type=Path, metavar="FILE", help="lists of images: train.txt val.txt [test.txt]")
    group.add_argument(
        "--val-share", type=float, metavar="SHARE", help=f"draw a split with this share for val (default: {DEFAULT_VAL_SHARE})"
    )
    group.add_argument("--test-share", type=float, metavar="SHARE", help="draw a split with this share for test (default: 0)")
    add_group_flags(group)
    group.add_argument("--seed", type=int, default=0, help="seed of the split (default: 0)")
    group.add_argument(
        "--link",
        nargs="?",
        const="symlink",
        choices=["symlink", "hardlink"],
        help="link the images instead of copying them (symlink if nothing follows)",
    )


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
    val_share, test_share = options.val_share, options.test_share or 0.0
    val_share = DEFAULT_VAL_SHARE if val_share is None else val_share
    if not (0 < val_share < 1 and 0 <= test_share < 1 and val_share + test_share < 1):
        parser.error(f"--val-share {val_share} and --test-share {test_share} must leave something to train on, and to validate")
    if options.min_images < 1:
        parser.error(f"--min-images must be at least 1, found {options.min_images}")
    if not 0 <= options.seed < 2**32:
        parser.error(f"--seed must be from 0 to {2**32 - 1}, found {options.seed}")
    if options.classes_from == "csv" and not options.classes_csv:
        parser.error("--classes-from csv needs the file: --classes-csv FILE")
    check_group_flags(parser, options)
    _check_outputs(parser, options)
    others = {"--classes-from": options.classes_from not in (None, "csv"), "--class-pattern": options.class_pattern}
    given = [flag for flag, value in others.items() if value]
    if options.classes_csv and not (options.output or options.group):
        given.insert(0, "--classes-csv")
    if len(given) > 1:
        parser.error(f"{given[0]} and {given[1]} are two sources of the class: leave one out")
    renamed = [old for old, _ in options.rename]
    if len(set(renamed)) < len(renamed):
        parser.error(f"--rename gives {max(renamed, key=renamed.count)} two names: leave one out")
    return options


def _check_outputs(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    names = [wish.name.lower() for wish in options.output]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        parser.error(f"--output {twice} is given twice: give each image output a name of its own")
    if options.csv_image and (options.csv_columns or not (options.output or options.group)):
        parser.error("--csv-image goes with --output and --group; --csv-columns IMAGE CLASS names the image's column already")
    class_flags = {"--csv-columns": options.csv_columns, "--classes-from": options.classes_from, "--class-key": options.class_key}
    class_flags["--class-pattern"] = options.class_pattern
    given = [flag for flag, value in {**class_flags, "--image-class": options.image_class}.items() if value]
    if CLASS in names and given:
        parser.error(f"--output {CLASS}=... and {given[0]} are two sources of the class: leave one out")


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
    rename(source, options.rename)
    names = options.names or source.names
    if not names:
        raise ConversionError(f"{shown(options.source)} has no box with a class: {oddities.first() or 'it names no objects'}")
    pictures = _usable(source, index, oddities)
    fixed = fixed_split(options, source, list(pictures), index, oddities)
    images = list(pictures) if fixed is None else sorted(image for part in fixed.values() for image in part)
    labels = image_labels(options, source, images, index, oddities)
    groups = groups_of(options, images, index, oddities)
    splits = whole_split(options, fixed, images, labels.strata(), pictures, groups, oddities)
    check_copies(splits, labels, pictures, index, oddities)
    check_likeness(splits, labels, pictures, index, oddities)
    check_groups(splits, groups or {}, oddities)
    called = _result_names(images, pictures, index, oddities)
    objects = {image: _objects(image, source, pictures[image], names, index, oddities) for image in images}
    records = {image: labels.added_to(record, image) for image, record in objects.items()}
    samples = {
        part: [
            Sample(image, called[image], records[image], pictures[image].ended, bool(pictures[image].deep))
            for image in splits[part]
        ]
        for part in splits
    }
    if not any(record.boxes or record.polygons for record in records.values()):
        raise ConversionError(f"no box is left to convert: {oddities.first() or 'the annotations have no objects'}")
    rows = count_content(samples, names, labels.outputs, oddities)
    reports = {REPORT: report_text(rows, oddities), "conversion.csv": oddities.csv()}
    write_dataset(options.out, samples, names, labels.outputs, reports, options.link)
    written = f"written: {shown(options.out / 'data.yaml')}, {', '.join(reports)}"
    warnings = [f"\nWARNING: {case.kind.title}: {case}: {case.kind.action}" for case in oddities.of(Kind.ONE_CLASS)]
    return "\n".join([content_text(rows), "", oddities.table(), "", written, *warnings])


def _usable(source: Source, index: ImageIndex, oddities: Oddities) -> dict[Path, Picture]:
    """The images that can be used, and what is in each."""
    wanted = [image for image in index.files if image not in source.faulty and (source.complete or image in source.annotations)]
    usable, root = {}, index.root.resolve()
    for image, picture in read_pictures(wanted).items():
        if isinstance(picture, str):
            oddities.add(Kind.UNREADABLE_IMAGE, index.key(image), picture)
        else:
            usable[image] = picture
            if root not in (real := image.resolve()).parents:
                oddities.add(Kind.LINKED, index.key(image), str(real))
    if not usable:
        raise ConversionError(f"no image is left to convert: {oddities.first() or 'the annotations name none'}")
    return usable


def _result_names(
    images: Sequence[Path], pictures: Mapping[Path, Picture], index: ImageIndex, oddities: Oddities
) -> dict[Path, str]:
    """The file name of each image in the result: its own, unless another has its stem and would share its label file."""
    stems = Counter(image.stem.casefold() for image in images)
    called, taken = {}, {stem for stem, count in stems.items() if count == 1}
    for image in images:
        suffix = ".png" if pictures[image].deep else image.suffix
        called[image] = f"{image.stem}{suffix}"
        if stems[image.stem.casefold()] > 1:
            stem = index.key(image).replace("/", "-").replace(".", "-")
            while stem.casefold() in taken:
                stem += "-"
            taken.add(stem.casefold())
            called[image] = f"{stem}{suffix}"
            oddities.add(Kind.SAME_NAME, index.key(image), called[image])
    return called


def _objects(
    image: Path, source: Source, picture: Picture, names: Sequence[str], index: ImageIndex, oddities: Oddities
) -> LabelRecord:
    annotation = source.annotations.get(image)
    if picture.deep:
        oddities.add(Kind.DEEP, index.key(image), picture.deep)
    if not picture.ended:
        oddities.add(Kind.NO_END, index.key(image))
    if annotation is None:
        oddities.add(Kind.BACKGROUND, index.key(image))
        return LabelRecord()
    if not annotation.objects:
        oddities.add(Kind.NO_OBJECTS, annotation.where)
    return to_record(annotation, picture, names, oddities)
