"""Label Studio: a JSON file that is a list of tasks, each with its image and results; in per cent of the picture. JSON-MIN too.

What is said of the image: its choices, taxonomies, numbers, ratings and texts, by the names of their tags (`from_name`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from gradnorm_plugin.convert.annotations import (
    CLASS_KEYS,
    Annotation,
    Object,
    Point,
    Source,
    around,
    clean_name,
    four_numbers,
    note_class,
    number,
    points_of,
    size_of,
    turned,
)
from gradnorm_plugin.convert.image_files import SUFFIXES, ImageIndex
from gradnorm_plugin.convert.oddities import Kind, Oddities, shown

_OF_IMAGE = ("choices", "taxonomy", "number", "rating", "text", "datetime", "pairwise")
_SHAPES = ("rectanglelabels", "ellipselabels", "polygonlabels")
_NO_BOX = ("brushlabels", "keypointlabels", "vectorlabels", "bitmasklabels")
_OF_TASK = {"id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time"}  # keys of JSON-MIN
_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")  # what an upload sets before the file name


def is_label_studio(content: Any) -> bool:
    """Whether a JSON file's content is a list of Label Studio's tasks, or of JSON-MIN's."""
    tasks = content if isinstance(content, list) else []
    return any(
        isinstance(task, dict) and (isinstance(task.get("data"), dict) or "annotation_id" in task or "annotator" in task)
        for task in tasks
    )


@dataclass
class LabelStudioReader:
    """Gathers what Label Studio's files say of the images of `index`; `add` each file, then `finish`.

    The class of an image is what stands under `class_key` (default: the only choice or taxonomy that there is, else one
    called as in `CLASS_KEYS`). With `polygons`, outlines are kept beside the boxes.
    """

    index: ImageIndex
    oddities: Oddities
    class_key: str | None = None
    chosen: Sequence[str] = ()
    polygons: bool = False
    source: Source = field(default_factory=lambda: Source(complete=False, entries={}))
    _choices: dict[str, None] = field(default_factory=dict)

    def add(self, file: Path, content: Sequence[Any]) -> None:
        """Take in the tasks of one file."""
        for place, task in enumerate(content):
            where = f"{shown(file)}: task {task.get('id', f'[{place}]') if isinstance(task, dict) else f'[{place}]'}"
            if not isinstance(task, dict):
                self.oddities.add(Kind.UNREADABLE_ANNOTATION, where, "no task")
                continue
            name, images = self._images(task, file)
            where = f"{where}: {name}" if name else where
            absent = "no such image" if name else "it names no image"
            image = self.source.the_one(images, where, self.index, self.oddities, absent)
            if image is None:
                continue
            results = self._results(task, where)
            if results is None:
                self.oddities.add(Kind.NOT_ANNOTATED, where)
                self.source.faulty.add(image)
            else:
                self._add_results(image, results, where)

    def finish(self) -> Source:
        """All that was said; box classes in the alphabet's order."""
        things = [thing for annotation in self.source.annotations.values() for thing in annotation.objects]
        self.source.names = sorted({thing.name for thing in things})
        known = tuple(key for key in CLASS_KEYS if key in self._choices)
        keys = (self.class_key,) if self.class_key else known[:1] or tuple(self._choices)
        if len(keys) > 1:
            self.source.class_keys = keys
        else:
            for image, rows in (self.source.entries or {}).items():
                for _, entry in rows:
                    note_class(self.source, image, entry, keys, self.chosen)
        self.source.note_unlisted(self.index, self.oddities)
        return self.source

    def _images(self, task: Mapping[str, Any], file: Path) -> tuple[str, list[Path]]:
        """The image's name in the task, and the images that it fits."""
        data = task["data"] if isinstance(task.get("data"), dict) else task
        named = [value for value in [*data.values(), task.get("file_upload")] if isinstance(value, str)]
        names = [name for name in map(_file_name, named) if name.rpartition(".")[2].lower() in SUFFIXES]
        for name in names:
            uploaded = _UPLOADED.sub("", name.rpartition("/")[2], count=1)
            for spelling in dict.fromkeys((name, uploaded)):
                if images := self.index.find(spelling, near=file):
                    return name, images
        return (names or [""])[0], []

    def _results(self, task: Mapping[str, Any], where: str) -> list[Any] | None:
        """The results of the annotation that counts; None if nobody has annotated the task."""
        if not isinstance(task.get("data"), dict):
            return _of_min(task)
        given = task.get("annotations") or task.get("completions") or []
        made = [one for one in given if isinstance(one, dict) and not one.get("was_cancelled")] if isinstance(given, list) else []
        if not made:
            return None
        best = max(made, key=lambda one: (one.get("ground_truth") is True, str(one.get("updated_at") or one.get("created_at"))))
        if len(made) > 1:
            why = "the ground truth" if best.get("ground_truth") is True else "the newest"
            self.oddities.add(Kind.SEVERAL_ANNOTATIONS, where, f"{len(made)}; {why} counts")
        results = best.get("result")
        return results if isinstance(results, list) else []

    def _add_results(self, image: Path, results: list[Any], where: str) -> None:
        annotation = self.source.begin(image, where, None, self.oddities)
        entry: dict[str, Any] = {}
        dicts = [result for result in results if isinstance(result, dict) and isinstance(result.get("value"), dict)]
        for place, result in enumerate(dicts):
            value, kind = result["value"], result.get("type")
            at = f"{where}: {result.get('id', place)}"
            if kind in _SHAPES:
                if thing := self._object(result, value, kind, at, annotation):
                    annotation.objects.append(thing)
            elif kind in _NO_BOX:
                self.oddities.add(Kind.UNREADABLE_OBJECT, at, f"{kind} have no box: export them as masks or as COCO")
            else:
                said = next((value[key] for key in _OF_IMAGE if key in value), None)
                if said is not None and not {"x", "points", "start"} & value.keys():  # else it is said of one box
                    self._note(entry, str(result.get("from_name") or kind), said, kind)
        if len(dicts) < len(results):
            self.oddities.add(Kind.UNREADABLE_OBJECT, where, f"{len(results) - len(dicts)} results without a value")
        if self.source.entries is not None:
            self.source.entries.setdefault(image, []).append((where.rpartition(": ")[0], entry))

    def _note(self, entry: dict[str, Any], name: str, said: Any, kind: Any) -> None:
        if kind == "taxonomy" and isinstance(said, list):
            said = ["/".join(map(str, path)) if isinstance(path, list) else path for path in said]
        if kind in ("choices", "taxonomy"):
            self._choices.setdefault(name)
            before = entry.get(name)
            said = [*(before if isinstance(before, list) else []), *(said if isinstance(said, list) else [said])]
        elif isinstance(said, list) and len(said) == 1:
            said = said[0]
        entry[name] = said

    def _object(
        self, result: Mapping[str, Any], value: Mapping[str, Any], kind: str, where: str, annotation: Annotation
    ) -> Object | None:
        labels = value.get(kind)
        names = [name for name in map(clean_name, labels if isinstance(labels, list) else []) if name]
        points: list[Point] | None = None
        sides, corners = four_numbers(value.get(key) for key in ("x", "y", "width", "height")), None
        if kind == "rectanglelabels" and sides:
            corners = (sides[0], sides[1], sides[0] + sides[2], sides[1] + sides[3])
        elif kind == "ellipselabels":
            radii = four_numbers(value.get(key) for key in ("x", "y", "radiusX", "radiusY"))
            corners = (radii[0] - radii[2], radii[1] - radii[3], radii[0] + radii[2], radii[1] + radii[3]) if radii else None
        elif kind == "polygonlabels":
            points = points_of(value["points"]) if isinstance(value.get("points"), list) else None
            corners = around(points) if points else None
        if len(names) != 1 or corners is None or number(result.get("image_rotation")):
            reason = "a picture turned in Label Studio" if corners and len(names) == 1 else f"{len(names)} labels"
            self.oddities.add(Kind.UNREADABLE_OBJECT, where, reason if corners else "its numbers cannot be read")
            return None
        size = size_of(result.get("original_width"), result.get("original_height"))
        annotation.size = annotation.size or size
        if angle := number(value.get("rotation")):
            width, height = size or (1, 1)
            aspect = height / width  # angles are those of the pixels
            x1, y1, x2, y2 = corners
            pivot = (x1, y1) if kind == "rectanglelabels" else ((x1 + x2) / 2, (y1 + y2) / 2)
            outline = [(x, y * aspect) for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2))]
            x1, y1, x2, y2 = around(turned(outline, (pivot[0], pivot[1] * aspect), angle))
            corners = (x1, y1 / aspect, x2, y2 / aspect)
            if not all(map(math.isfinite, corners)):
                self.oddities.add(Kind.UNREADABLE_OBJECT, where, "its numbers cannot be read")
                return None
            self.oddities.add(Kind.AROUND_TURNED, where, f"{names[0]}, by {angle:g} degrees")
        x1, y1, x2, y2 = (edge / 100 for edge in corners)
        outline_kept = tuple((x / 100, y / 100) for x, y in points) if points and self.polygons else None
        return Object(names[0], (x1, y1, x2, y2), where, outline_kept, shares=True)


def _of_min(task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The results of a JSON-MIN task, whose keys are the tags' names, in the form of the other export."""
    results: list[dict[str, Any]] = []
    for name, said in task.items():
        regions = said if isinstance(said, list) else []
        shapes = [
            (region, kind) for region in regions if isinstance(region, dict) for kind in (*_SHAPES, *_NO_BOX) if kind in region
        ]
        if shapes:
            results += [{**region, "type": kind, "value": region, "from_name": name} for region, kind in shapes]
        elif isinstance(said, dict) and isinstance(said.get("choices"), list):
            results.append({"type": "choices", "from_name": name, "value": said})
        elif regions and all(isinstance(path, dict) and isinstance(path.get("taxonomy"), list) for path in regions):
            results += [{"type": "taxonomy", "from_name": name, "value": path} for path in regions]
        elif name not in _OF_TASK and isinstance(said, (int, float)):
            results.append({"type": "number", "from_name": name, "value": {"number": said}})
        elif name not in _OF_TASK and isinstance(said, str) and not _is_address(said):
            results.append({"type": "choices", "from_name": name, "value": {"choices": [said]}})
    return results


def _is_address(said: str) -> bool:
    return _file_name(said).rpartition(".")[2].lower() in SUFFIXES


def _file_name(address: str) -> str:
    """The path in an address; that of a local file stands behind `?d=`."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return address
    local = parse_qs(parts.query).get("d")
    return local[0] if local else parts.path if parts.scheme else address.partition("?")[0]
