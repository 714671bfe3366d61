"""The data yaml, checked before upstream reads it, and the place of its images.

Missing images are downloaded as it says, without running other people's code.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from reprlib import repr as short
from typing import Any

from gradnorm_plugin.outputs import OutputError, Outputs, class_output, read_outputs
from gradnorm_plugin.reading import OUTPUTS_KEY, DescriptionError, read_yaml
from gradnorm_plugin.upstream.checkout import REPOSITORY
from gradnorm_plugin.upstream.gateway import upstream, upstream_root

NAME_KEYS = ("names", "classification_names")
LONGEST_NAME = 200
"""Characters; a longer name would fit neither a table nor the name of a file."""
SPLITS = ("train", "val", "test")
_OWN = ("joint.yaml", "heart-outputs.yaml")
"""This package's own data yamls, whose `download` may run."""
_GENERATOR, _OLD_GENERATOR = "import gradnorm_demo as phantom", "from gradnorm_plugin.data import phantom"
"""How their `download` begins, and how it did in older copies."""


def image_outputs(data: Mapping[str, Any]) -> Outputs:
    """The image outputs of a data yaml's content: that of its `classification_names`, then those under `image_outputs`.

    Raises:
        DescriptionError: if there are none, or one is not as it should be.
    """
    names, described = data.get("classification_names"), data.get(OUTPUTS_KEY)
    found: Outputs = (class_output(classification_names(data)),) if names or described is None else ()
    if described is not None:
        try:
            found += read_outputs(described)
        except OutputError as error:
            raise DescriptionError(f"the data yaml: {error}") from None
    for output in found:
        for index, name in enumerate(output.rows):
            _check_name(f"{OUTPUTS_KEY}: {output.name}", index, name)
    if len({output.name for output in found}) < len(found):
        raise DescriptionError("`image_outputs` of the data yaml has `class`, which is that of `classification_names`: rename it")
    return found


def classification_names(data: Mapping[str, Any]) -> dict[int, str]:
    """The image classes {0: name, 1: name, ...} of a data yaml's content, given there as such a mapping or as a list.

    Raises:
        DescriptionError: if they are missing, not numbered 0, 1, 2, ..., not text, or not different.
    """
    key = "classification_names"
    found = data.get(key)
    if not found:
        raise DescriptionError(
            f"the data yaml has no `{key}`: add for instance `{key}: {{0: PSAX, 1: PLAX}}`, a name for each image class, or "
            f"`{OUTPUTS_KEY}` (docs/labels.md)"
        )
    if isinstance(found, (list, tuple)):
        found = dict(enumerate(found))
    _check_numbers(key, found)
    names = {index: found[index] for index in sorted(found)}
    for index, name in names.items():
        _check_name(key, index, name)
    if len(set(names.values())) < len(names):
        raise DescriptionError(f"`{key}` of the data yaml has a name twice ({', '.join(names.values())}): rename one")
    return names


def check_description(data: object) -> None:
    """Refuse content of a data yaml on which upstream would stumble: paths that are not text, invalid names.

    Missing keys are left to upstream, which reports them.

    Raises:
        DescriptionError: naming the key and what to write there.
    """
    if not isinstance(data, Mapping):
        raise DescriptionError("the data yaml holds no `key: value` lines: write `train`, `val` and `names` as YOLOv5's own do")
    for key in ("path", "train", "val", "test", "download"):
        found = data.get(key)
        places = found if isinstance(found, list) and key in ("train", "val", "test") else [found]
        if any(place is not None and not isinstance(place, str) for place in places):
            raise DescriptionError(f"`{key}` of the data yaml is {short(found)}: write text (quote it if it looks like a number)")
        if any("\0" in place for place in places if place):
            raise DescriptionError(f"`{key}` of the data yaml is {short(found)}: no file name has the character U+0000")
    if "names" not in data:
        return
    names = dict(enumerate(data["names"])) if isinstance(data["names"], list) else data["names"]
    _check_numbers("names", names)
    if not names:
        raise DescriptionError("`names` of the data yaml is empty: give a name for each class of the boxes")
    for index, name in names.items():
        _check_name("names", index, name)


def read_description(data: str | Path) -> dict[str, Any]:
    """The content of the data yaml `data`, its names as text.

    Raises:
        DescriptionError: if the file cannot be read, or says what upstream would stumble over.
    """
    contents = read_yaml(data, NAME_KEYS)
    try:
        check_description(contents)
    except DescriptionError as error:
        raise DescriptionError(f"{data}: {error}") from None
    return contents


def find_dataset(data: str | Path, allow_download: bool = False) -> dict[str, Any]:
    """What upstream's `check_dataset` makes of the data yaml `data`, with missing images downloaded as it says.

    Upstream gets the content that was checked here, and does not read the file again. A relative `path` counts from upstream's
    folder, as ever; if the images are not there, from the folder of the yaml.

    Upstream runs the `download` of a data yaml, as Python or in a shell. Here that happens only if it is the text of one of this
    package's own data yamls, the address of a .zip, which is data, or if `allow_download` is set.

    Raises:
        DescriptionError: if the yaml is not as it should be, or its images are not there.
    """
    contents = read_description(data)
    general = upstream("utils.general")
    if isinstance(contents.get("path"), str):
        contents["path"] = os.path.expanduser(contents["path"])
    beside, looked_in = _beside(contents, Path(data))
    if beside is not None:
        contents["path"] = str(beside)
        general.LOGGER.info(f"{data}: its `path` is taken from the folder of the yaml: {beside}")
    names = contents.get("names") or {}
    twice = [name for name, count in Counter(names if isinstance(names, list) else names.values()).items() if count > 1]
    if twice:
        general.LOGGER.warning(f"WARNING ⚠️ {data}: `names` has {', '.join(twice)} more than once: results cannot tell them apart")
    named = {split: contents.get(split) for split in SPLITS}
    allowed = allow_download or not _runs_code(contents)
    try:
        found = general.check_dataset(contents, autodownload=allowed)
    except (Exception, SystemExit) as error:  # upstream raises bare exceptions for what is wrong with a data yaml
        hint = "; its `download` is code: read it, and let it run with --allow-download" if not allowed else ""
        raise DescriptionError(f"{data}: {error}{looked_in}{hint}") from error
    for split, places in named.items():
        if places and isinstance(found.get(split), (str, list)):
            root, resolved = Path(found.get("path") or upstream_root()), found[split]
            if isinstance(places, list):
                found[split] = [_own_labels(split, root, *pair) for pair in zip(places, resolved, strict=True)]
            else:
                found[split] = _own_labels(split, root, places, resolved)
    return found


def _check_name(key: str, index: int, name: object) -> None:
    """Refuse what is not a name, or would break tables, logs and files that contain it."""
    where = f"`{key}` of the data yaml has {short(name)} at {index}"
    if not isinstance(name, str) or not name.strip():
        raise DescriptionError(f"{where}, which is no name: quote it as text")
    strange = next((letter for letter in name if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")), None)
    if strange is not None:
        raise DescriptionError(f"{where} with the character U+{ord(strange):04X}: a name is one line of letters, remove it")
    if len(name) > LONGEST_NAME:
        raise DescriptionError(f"{where} with {len(name)} characters: shorten it to {LONGEST_NAME}")


def _check_numbers(key: str, names: object) -> None:
    """Refuse names that are not {0: name, 1: name, ...}."""
    if not isinstance(names, Mapping):
        raise DescriptionError(f"`{key}` of the data yaml is {short(names)}: write a list, or {{0: name, 1: name, ...}}")
    if any(type(index) is not int for index in names) or sorted(names) != list(range(len(names))):
        numbers = ", ".join(str(index) for index in names)
        raise DescriptionError(f"`{key}` of the data yaml is numbered {numbers}: number the classes 0, 1, 2, ...")


def _beside(contents: dict[str, Any], data: Path) -> tuple[Path | None, str]:
    """The folder that a relative `path` means if its images are only found from the yaml's own folder, else None; and, for a
    message, where images were looked for."""
    path = Path(contents.get("path") or "")
    if path.is_absolute():
        return None, ""
    theirs, ours = (Path(os.path.normpath(folder / path)) for folder in (upstream_root(), data.absolute().parent))
    places = contents.get("val") or contents.get("train") or []

    def there(folder: Path) -> bool:
        # Upstream takes `../x` for `x` where only that is there: so other tools write their yamls
        return all(
            os.path.exists(folder / place) or (place.startswith("../") and os.path.exists(folder / place[3:]))
            for place in ([places] if isinstance(places, str) else places)
        )

    looked_in = f"; a relative `path` counts from {theirs.parent if contents.get('path') else theirs} or from the yaml's folder"
    return (ours if not there(theirs) and there(ours) else None), looked_in


def _own_labels(split: str, path: Path, named: str, resolved: str) -> str:
    """The folder as the yaml names it if that is a link with a folder of labels of its own, else as resolved.

    Upstream follows the link first, and reads the labels at its target.
    """
    place = os.path.normpath(path / named)
    if not os.path.isdir(place) or os.path.realpath(place) != resolved:
        return resolved
    img2label_paths = upstream("utils.dataloaders").img2label_paths
    own, theirs = (os.path.dirname(img2label_paths([os.path.join(folder, "x.png")])[0]) for folder in (place, resolved))
    if not os.path.isdir(own) or os.path.realpath(own) == os.path.realpath(theirs) or own == place:
        return resolved
    if os.path.isdir(theirs) and theirs != resolved:
        upstream("utils.general").LOGGER.warning(
            f"WARNING ⚠️ `{split}` is a link with two folders of labels: {own} is read, {theirs} is not"
        )
    return place


def _runs_code(contents: dict[str, Any]) -> bool:
    """Whether upstream would run code of a data yaml with these contents that is not this package's own."""
    script = contents.get("download")
    is_archive = isinstance(script, str) and script.startswith("http") and script.endswith(".zip")
    if not script or is_archive:
        return False
    script = script.replace(_OLD_GENERATOR, _GENERATOR) if isinstance(script, str) else script
    return all(script != read_yaml(REPOSITORY / "data" / name).get("download") for name in _OWN)
