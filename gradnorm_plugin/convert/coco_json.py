"""COCO's JSON files as such: reading one, and recognising one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gradnorm_plugin.convert.records import ConversionError, first_line, shown

_LISTS = ("images", "annotations", "categories")


def load_json(file: Path) -> Any:
    """The content of a JSON file.

    Raises:
        ConversionError: with file and line, if it is not JSON.
    """
    try:
        return json.loads(file.read_bytes())
    except json.JSONDecodeError as error:
        raise ConversionError(f"{shown(file)}:{error.lineno}: not JSON ({error.msg}): correct it, or export it anew") from None
    except RecursionError:
        raise ConversionError(f"{shown(file)}: not COCO's JSON: lists within lists without end") from None
    except ValueError as error:  # no text in any encoding of JSON, or a number of thousands of digits
        raise ConversionError(f"{shown(file)}: not readable as JSON: {first_line(error)}: export it anew as UTF-8") from None


def is_coco(content: Any) -> bool:
    """Whether a JSON file's content has the three lists of COCO's: images, annotations, categories."""
    return isinstance(content, dict) and all(isinstance(content.get(key), list) for key in _LISTS)
