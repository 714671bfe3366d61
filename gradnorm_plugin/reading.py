"""Reading text files as people save them: any Unicode encoding with a byte order mark, and YAML with names as they are written.

A text file is read once, by the same rules in every locale; what is read is what is checked and used.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from gradnorm_plugin.files import read_bytes

OUTPUTS_KEY = "image_outputs"
"""Key of a data yaml under which names are text, below the kinds of the outputs."""
NODES = 1_000_000
"""How many values a YAML file may have, counting each as often as aliases repeat it."""

_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_TAG = "tag:yaml.org,2002:"
# What PyYAML makes of plain text that looks like something else: 02146, 1e3, 12:30, 2020-01-01, no, ~
_PLAIN = {_TAG + kind for kind in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value")}


class DescriptionError(ValueError):
    """A text file, usually the data yaml, or something it refers to cannot be used; the message says why and what to do."""


def read_text(path: str | Path) -> str:
    """The text of a regular file in UTF-8, with or without a byte order mark, or in UTF-16 with one; its lines end with `\\n`.

    Raises:
        DescriptionError: if it cannot be read or is too large, or at its first byte that is neither.
    """
    try:
        content = read_bytes(Path(path))
    except (OSError, ValueError) as error:  # ValueError: a name with the character U+0000
        raise DescriptionError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    mark = next((mark for mark in _MARKS if content.startswith(mark)), b"")
    encoding = _MARKS.get(mark, "utf-8")
    try:
        return content[len(mark) :].decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        start = len(mark) + error.start
        line = content.count(b"\n", 0, start) + 1
        raise DescriptionError(
            f"{path}:{line}: byte {start} of the file (0x{content[start]:02X}) is not {encoding[:6].upper()}: "
            f"save the file as UTF-8"
        ) from None


def read_yaml(path: str | Path, text_keys: Sequence[str] = ()) -> Any:
    """The content of a YAML file as plain values. Names under `text_keys` are text as it is written, their numbers decimal.

    Raises:
        DescriptionError: naming file and line: not Unicode, not YAML, a key given twice, aliases without end, a tag of Python.
    """
    text = read_text(path)
    loader = None
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_nodes(loader, node, {})
        if isinstance(node, yaml.MappingNode):
            node.value = [
                (key, _as_text(loader, value) if getattr(key, "value", None) in text_keys else value) for key, value in node.value
            ]
            node.value = [
                (key, _outputs_as_text(loader, value) if getattr(key, "value", None) == OUTPUTS_KEY else value)
                for key, value in node.value
            ]
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        where = f"{path}:{error.problem_mark.line + 1}" if error.problem_mark else path
        hint = " (indent with spaces)" if "'\\t'" in str(error.problem) else ""
        raise DescriptionError(f"{where}: not YAML: {error.problem}{hint}: correct it") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise DescriptionError(f"{path}:{line}: character U+{error.character:04X} has no place in YAML: remove it") from None
    except RecursionError:
        raise DescriptionError(f"{path}: not YAML: nested too deep") from None
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, OverflowError) as error:
        # PyYAML has more than its own errors, such as ValueError for a 13th month
        raise DescriptionError(f"{path}: not YAML: {error}: correct it") from None
    finally:
        if loader is not None:
            loader.dispose()


def _check_nodes(loader: yaml.SafeLoader, node: yaml.Node, sizes: dict[yaml.Node, int]) -> int:
    """How many values a node has with all its aliases written out; refuses keys that are given twice."""
    if node in sizes:
        if not sizes[node]:
            raise yaml.MarkedYAMLError(problem="an anchor contains itself", problem_mark=node.start_mark)
        return sizes[node]
    sizes[node] = 0
    size = 1
    if isinstance(node, yaml.MappingNode):
        known: dict[Any, int] = {}
        for key, value in node.value:
            size += _check_nodes(loader, key, sizes) + _check_nodes(loader, value, sizes)
            if isinstance(key, yaml.ScalarNode) and key.tag != _TAG + "merge":
                name = loader.construct_object(key)
                if name in known:
                    problem = f"`{key.value}` is given twice, first in line {known[name]}"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                known[name] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        size += sum(_check_nodes(loader, item, sizes) for item in node.value)
    if size > NODES:
        raise yaml.MarkedYAMLError(problem=f"more than {NODES:,} values, most by aliases", problem_mark=node.start_mark)
    sizes[node] = size
    return size


def _as_text(loader: yaml.SafeLoader, names: yaml.Node) -> yaml.Node:
    """A list or mapping of names whose names are text and whose numbers are decimal, `010` too."""

    def text(node: yaml.Node) -> yaml.Node:
        return yaml.ScalarNode(_TAG + "str", node.value, node.start_mark) if node.tag in _PLAIN else node

    def number(node: yaml.Node) -> yaml.Node:
        if not isinstance(node, yaml.ScalarNode) or not re.fullmatch("[0-9]{1,9}", node.value):
            return node
        return yaml.ScalarNode(_TAG + "int", str(int(node.value)), node.start_mark)

    if isinstance(names, yaml.SequenceNode):
        return yaml.SequenceNode(names.tag, [text(item) for item in names.value], names.start_mark)
    if isinstance(names, yaml.MappingNode):
        loader.flatten_mapping(names)
        return yaml.MappingNode(names.tag, [(number(key), text(value)) for key, value in names.value], names.start_mark)
    return names


def _outputs_as_text(loader: yaml.SafeLoader, outputs: yaml.Node) -> yaml.Node:
    """{output: {kind: names}} with names as text, and the rest unchanged: a `range` holds numbers."""
    if not isinstance(outputs, yaml.MappingNode):
        return outputs
    found = []
    for name, description in outputs.value:
        if isinstance(description, yaml.MappingNode):
            pairs = [(key, value if key.value == "range" else _as_text(loader, value)) for key, value in description.value]
            description = yaml.MappingNode(description.tag, pairs, description.start_mark)
        found.append((name, description))
    return yaml.MappingNode(outputs.tag, found, outputs.start_mark)
