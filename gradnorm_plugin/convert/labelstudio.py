"""Label Studio: a JSON list of tasks, each with its image and results, in per cent of the picture. JSON-MIN as well.

Entries about the image: choices, taxonomies, numbers, ratings and texts, by the names of their tags (`from_name`).
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from gradnorm_plugin.convert.boxes import (
    Annotation,
    Object,
    around,
    around_turned,
    clean_name,
    corners_of,
    four_numbers,
    number,
    points_of,
    size_of,
)
from gradnorm_plugin.convert.coco import load_json
from gradnorm_plugin.convert.image_files import SUFFIXES, files_under
from gradnorm_plugin.convert.oddities import ConversionError, Kind, shown
from gradnorm_plugin.convert.source import CLASS_KEYS, Source

_OF_IMAGE = ("choices", "taxonomy", "number", "rating", "text", "datetime", "pairwise")
_NUMBERS = {
    "rectanglelabels": (("x", "y", "width", "height"), "xywh"),
    "ellipselabels": (("x", "y", "radiusX", "radiusY"), "ellipse"),
}
_SHAPES = (*_NUMBERS, "polygonlabels")
_NO_BOX = ("brushlabels", "keypointlabels", "vectorlabels", "bitmasklabels")
_OF_TASK = {"id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time"}  # keys of JSON-MIN that are not tags
_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")  # prefix of an uploaded file's name


def is_label_studio(content: Any) -> bool:
    """Whether a JSON file's content is a list of Label Studio tasks, also in JSON-MIN."""
    tasks = content if isinstance(content, list) else []
    return any(
        isinstance(task, dict) and (isinstance(task.get("data"), dict) or "annotation_id" in task or "annotator" in task)
        for task in tasks
    )


def read_label_studio(options: argparse.Namespace, source: Source) -> None:
    """Read the given file, or all Label Studio files below the source; box classes are sorted alphabetically.

    The class of an image is the choice or taxonomy named in `CLASS_KEYS`, else the only one there is.
    """
    place = options.annotations or options.source
    source.complete, found = False, False
    choices: dict[str, None] = {}
    for file in [place] if place.is_file() else files_under(place, ["json"]):
        content = load_json(file)
        if not is_label_studio(content):
            source.note(Kind.OTHER_JSON, shown(file))
            continue
        found = True
        for number_of, task in enumerate(content):
            if isinstance(task, dict):
                where = f"{shown(file)}: task {task.get('id', f'[{number_of}]')}"
                choices |= dict.fromkeys(_read_task(task, file, where, source, options.polygons))
            else:
                source.note(Kind.UNREADABLE_ANNOTATION, f"{shown(file)}: task [{number_of}]", "no task")
    if not found:
        raise ConversionError(f"{shown(place)} has no Label Studio file (JSON, a list of tasks): name it by --annotations")
    source.take_names()
    source.class_keys = [key for key in CLASS_KEYS if key in choices][:1] or list(choices)
    source.rival_keys = source.class_keys if len(source.class_keys) > 1 else ()


def _read_task(task: Mapping[str, Any], file: Path, where: str, source: Source, polygons: bool) -> list[str]:
    """Read one task; returns the names of its choices and taxonomies."""
    name, images = _images_of(task, file, source)
    where = f"{where}: {name}" if name else where
    image = source.the_one(images, where, "no such image" if name else "it names no image")
    if image is None:
        return []
    results = _results(task, where, source)
    if results is None:
        source.note(Kind.NOT_ANNOTATED, where)
        source.faulty.add(image)
        return []
    annotation = source.begin(image, where)
    entry: dict[str, Any] = {}
    choices = []
    whole = [result for result in results if isinstance(result, dict) and isinstance(result.get("value"), dict)]
    for place, result in enumerate(whole):
        value, kind = result["value"], result.get("type")
        at = f"{where}: {result.get('id', place)}"
        if kind in _SHAPES:
            if thing := _object(result, kind, at, annotation, source, polygons):
                annotation.objects.append(thing)
        elif kind in _NO_BOX:
            source.note(Kind.UNREADABLE_OBJECT, at, f"{kind} have no box: export them as masks or as COCO")
        elif not {"x", "points", "start"} & value.keys():  # else it describes a single box
            said, tag = next((value[key] for key in _OF_IMAGE if key in value), None), str(result.get("from_name") or kind)
            if said is not None and kind in ("choices", "taxonomy"):
                choices.append(tag)
                before = entry.get(tag)
                entry[tag] = [*(before if isinstance(before, list) else []), *_chosen(said, kind)]
            elif said is not None:
                entry[tag] = said[0] if isinstance(said, list) and len(said) == 1 else said
    if len(whole) < len(results):
        source.note(Kind.UNREADABLE_OBJECT, where, f"{len(results) - len(whole)} results without a value")
    source.entries.setdefault(image, []).append((where.rpartition(": ")[0], entry))
    return choices


def _chosen(said: Any, kind: str) -> list[Any]:
    """Choices, or paths through a taxonomy, which become `Heart/left`."""
    chosen = said if isinstance(said, list) else [said]
    return ["/".join(map(str, path)) if kind == "taxonomy" and isinstance(path, list) else path for path in chosen]


def _images_of(task: Mapping[str, Any], file: Path, source: Source) -> tuple[str, list[Path]]:
    """The image name in the task, and the images it matches."""
    data = task["data"] if isinstance(task.get("data"), dict) else task
    named = [_file_name(value) for value in [*data.values(), task.get("file_upload")] if isinstance(value, str)]
    names = [name for name in named if _is_image(name)]
    for name in names:
        for spelling in (name, _UPLOADED.sub("", name.rpartition("/")[2], count=1)):
            if images := source.index.find(spelling, near=file):
                return name, images
    return (names or [""])[0], []


def _file_name(address: str) -> str:
    """The path in a URL; that of a local file follows `?d=`."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return address
    local = parse_qs(parts.query).get("d")
    return local[0] if local else parts.path if parts.scheme else address.partition("?")[0]


def _is_image(name: str) -> bool:
    return name.rpartition(".")[2].lower() in SUFFIXES


def _results(task: Mapping[str, Any], where: str, source: Source) -> list[Any] | None:
    """The results of the relevant annotation; None if the task is not annotated."""
    if not isinstance(task.get("data"), dict):
        return _of_min(task)
    given = task.get("annotations") or task.get("completions") or []
    made = [one for one in given if isinstance(one, dict) and not one.get("was_cancelled")] if isinstance(given, list) else []
    if not made:
        return None
    best = max(made, key=lambda one: (one.get("ground_truth") is True, str(one.get("updated_at") or one.get("created_at"))))
    if len(made) > 1:
        why = "the ground truth" if best.get("ground_truth") is True else "the newest"
        source.note(Kind.SEVERAL_ANNOTATIONS, where, f"{len(made)}; {why} counts")
    results = best.get("result")
    return results if isinstance(results, list) else []


def _of_min(task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The results of a JSON-MIN task, whose keys are tag names, in the form of the full export."""
    results: list[dict[str, Any]] = []
    for name, said in task.items():
        regions = [region for region in said if isinstance(region, dict)] if isinstance(said, list) else []
        shapes = [(region, kind) for region in regions for kind in (*_SHAPES, *_NO_BOX) if kind in region]
        if shapes:
            results += [{**region, "type": kind, "value": region, "from_name": name} for region, kind in shapes]
        elif isinstance(said, dict) and isinstance(said.get("choices"), list):
            results.append({"type": "choices", "from_name": name, "value": said})
        elif regions and len(regions) == len(said) and all(isinstance(path.get("taxonomy"), list) for path in regions):
            results += [{"type": "taxonomy", "from_name": name, "value": path} for path in regions]
        elif name not in _OF_TASK and isinstance(said, (int, float)):
            results.append({"type": "number", "from_name": name, "value": {"number": said}})
        elif name not in _OF_TASK and isinstance(said, str) and not _is_image(_file_name(said)):
            results.append({"type": "choices", "from_name": name, "value": {"choices": [said]}})
    return results


def _object(
    result: Mapping[str, Any], kind: str, where: str, annotation: Annotation, source: Source, polygons: bool
) -> Object | None:
    value, points = result["value"], None
    labels = value.get(kind)
    names = [name for name in map(clean_name, labels if isinstance(labels, list) else []) if name]
    if kind == "polygonlabels":
        points = points_of(value["points"]) if isinstance(value.get("points"), list) else None
        corners = around(points) if points else None
    else:
        keys, reading = _NUMBERS[kind]
        values = four_numbers(value.get(key) for key in keys)
        corners = corners_of(values, reading) if values else None
    if len(names) != 1 or corners is None or number(result.get("image_rotation")):
        reason = "a picture turned in Label Studio" if len(names) == 1 else f"{len(names)} labels"
        source.note(Kind.UNREADABLE_OBJECT, where, reason if corners else "its numbers cannot be read")
        return None
    size = size_of(result.get("original_width"), result.get("original_height"))
    annotation.size = annotation.size or size
    if angle := number(value.get("rotation")):
        width, height = size or (1, 1)
        aspect = height / width  # angles are measured in pixels
        x1, y1, x2, y2 = corners
        pivot = (x1, y1) if kind == "rectanglelabels" else ((x1 + x2) / 2, (y1 + y2) / 2)
        x1, y1, x2, y2 = around_turned((x1, y1 * aspect, x2, y2 * aspect), (pivot[0], pivot[1] * aspect), angle)
        corners = (x1, y1 / aspect, x2, y2 / aspect)
        if not all(map(math.isfinite, corners)):
            source.note(Kind.UNREADABLE_OBJECT, where, "its numbers cannot be read")
            return None
        source.note(Kind.AROUND_TURNED, where, f"{names[0]}, by {angle:g} degrees")
    x1, y1, x2, y2 = (edge / 100 for edge in corners)
    outline = tuple((x / 100, y / 100) for x, y in points) if points and polygons else None
    return Object(names[0], (x1, y1, x2, y2), where, outline, shares=True)
