"""Where the images of a data yaml are; fetched if they are not there, without running code from strangers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from gradnorm_plugin.data.description import DescriptionError, check_description
from gradnorm_plugin.upstream.checkout import REPOSITORY
from gradnorm_plugin.upstream.gateway import upstream


def find_dataset(data: str | Path, allow_download: bool = False) -> dict[str, Any]:
    """What upstream's `check_dataset` finds for the data yaml `data`, with missing images fetched as it says.

    Upstream runs what a data yaml has under `download`, as Python or in a shell. Here that is done only for the text that this
    package's own `data/joint.yaml` has, for the address of a .zip, which is data, or if `allow_download` is set.

    Raises:
        DescriptionError: if the yaml is not as it should be, or its images are not there.
    """
    contents = _read(Path(data))
    if contents is not None:
        try:
            check_description(contents)
        except DescriptionError as error:
            raise DescriptionError(f"{data}: {error}") from None
    allowed = allow_download or not _runs_code(contents)
    try:
        return upstream("utils.general").check_dataset(str(data), autodownload=allowed)
    except (Exception, SystemExit) as error:  # upstream raises bare exceptions for what is wrong with a data yaml
        hint = "; its `download` is code: read it, and let it run with --allow-download" if not allowed else ""
        raise DescriptionError(f"{data}: {error}{hint}") from error


def _runs_code(contents: Any) -> bool:
    """Whether upstream would run code of a data yaml with these contents that is not this package's own."""
    script = _script(contents)
    is_archive = isinstance(script, str) and script.startswith("http") and script.endswith(".zip")
    return bool(script) and not is_archive and script != _script(_read(REPOSITORY / "data" / "joint.yaml"))


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8", errors="ignore"))
    except Exception:  # for upstream to report; PyYAML has more than its own errors, such as ValueError for a 13th month
        return None


def _script(contents: Any) -> Any:
    return contents.get("download") if isinstance(contents, dict) else None
