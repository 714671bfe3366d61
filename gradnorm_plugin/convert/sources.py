"""Reading a source in its format, and gathering what the flags and the source say of each image's class and split."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from gradnorm_plugin.convert import classes, split
from gradnorm_plugin.convert.coco import CocoReader
from gradnorm_plugin.convert.images import ImageIndex, Picture
from gradnorm_plugin.convert.oddities import Kind, Oddities
from gradnorm_plugin.convert.places import detect_format, find_description, find_json, find_xml, listed_classes
from gradnorm_plugin.convert.records import ConversionError, Source, shown
from gradnorm_plugin.convert.voc import read_voc
from gradnorm_plugin.convert.yolo import read_yolo


def read_source(options: argparse.Namespace, index: ImageIndex, oddities: Oddities) -> Source:
    """What the annotations of the images of `index` say.

    Raises:
        ConversionError: if they are not where and what the options say.
    """
    form = options.format or detect_format(options.annotations or options.source)
    if form == "voc":
        return read_voc(find_xml(options.source, options.annotations), index, oddities, options.drop_difficult)
    if form == "coco":
        contents, splits = find_json(options.source, options.annotations, oddities)
        reader = CocoReader(index, oddities, options.json_key, options.image_class, options.polygons)
        for file, content in contents.items():
            reader.add(file, content, splits.get(file))
        return reader.finish()
    labels = options.annotations
    description = find_description(options.source)
    listed = listed_classes(options.source, options.source / "labels", *([labels] if labels else []))
    names = (description.names if description else listed) or options.names
    if not names:
        raise ConversionError(f"{shown(options.source)} has no data yaml and no classes.txt: name the box classes by --names")
    image_classes = (description.image_classes if description else []) or options.image_class
    return read_yolo(index, labels, names, image_classes, description, oddities)


def fixed_split(
    options: argparse.Namespace, source: Source, images: Sequence[Path], index: ImageIndex, oddities: Oddities
) -> dict[str, list[Path]] | None:
    """The split that is given or that the source has; None if one is to be drawn.

    Raises:
        ConversionError: if it cannot be used.
    """
    if options.val_share is not None or options.test_share is not None:
        return None
    lists = dict(zip(split.SPLITS, options.split or (), strict=False)) or split.voc_lists(options.source)
    found = split.from_lists(lists, index, oddities) if lists else source.splits or split.from_folders(index)
    return split.settle_fixed(found, images, index, oddities) if found else None


def whole_split(
    options: argparse.Namespace,
    fixed: Mapping[str, list[Path]] | None,
    images: Sequence[Path],
    class_of: Mapping[Path, int],
    pictures: Mapping[Path, Picture],
    oddities: Oddities,
) -> dict[str, list[Path]]:
    """The images of train, val and perhaps test; what `fixed` lacks is drawn.

    Raises:
        ConversionError: if there are too few to draw from.
    """
    share = options.val_share or split.DEFAULT_VAL_SHARE
    if fixed is None:
        parts = split.draw(images, class_of, pictures, share, options.test_share or 0.0, options.seed)
    elif "val" not in fixed:
        parts = {**fixed, **split.draw(fixed["train"], class_of, pictures, share, 0.0, options.seed)}
        oddities.add(
            Kind.NO_VAL, shown(options.source), f"{len(parts['val'])} of {len(fixed['train'])} images, seed {options.seed}"
        )
    else:
        parts = fixed
    return {name: parts[name] for name in split.SPLITS if name in parts}


def image_classes(
    options: argparse.Namespace, source: Source, images: Sequence[Path], index: ImageIndex, oddities: Oddities
) -> tuple[list[str], dict[Path, int]]:
    """The names of the image classes, and which of them each of `images` has.

    Raises:
        ConversionError: if nothing names the classes, or none is left.
    """
    if options.classes_csv:
        named = classes.from_csv(options.classes_csv, options.csv_columns, index, options.image_class, oddities)
    elif options.classes_from == "folder":
        named = classes.from_folders(index)
    elif source.image_classes is None:
        raise ConversionError(f"the annotations name no class of any image: name a source of the classes: {classes.SOURCES}")
    else:
        named = source.image_classes
    order = source.image_class_order
    return classes.settle(images, named, options.image_class, order, options.min_images, index, oddities)
