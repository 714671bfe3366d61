"""What the set-up wrote into a checkout: a JSON file in its git folder, which tells our work from the user's."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from gradnorm_plugin.files import write_bytes


class CheckoutError(RuntimeError):
    """YOLOv5 is missing, not patched, or could not be set up; the message names the command or the remedy."""


def blob_id(content: bytes) -> str:
    """Git's id of a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def file_id(path: Path) -> str:
    """Git's id of a file, or the empty string if there is none."""
    return blob_id(path.read_bytes()) if path.is_file() else ""


def git_folder(checkout: Path) -> Path | None:
    """The git folder of a checkout (`.git`, or where a submodule's `.git` file points), or None if it has none."""
    entry = checkout / ".git"
    if entry.is_file():
        target = entry.read_text(encoding="utf-8", errors="surrogateescape").partition("gitdir:")[2].strip()
        entry = checkout / target
    return entry if (entry / "HEAD").is_file() else None


def replace_file(path: Path, content: bytes) -> None:
    """Write a whole file, and the folders above it; the mode of the file that it replaces is kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, content)


def _originals(checkout: Path) -> Path:
    return Record.path(checkout).with_name(Record.path(checkout).stem + "-originals")


@dataclass
class Record:
    """What set-ups wrote into a checkout.

    Attributes:
        digest: `patches_digest` of the patches applied; empty while they are being applied.
        files: path -> (blob id before, blob id after) for the patches named by `digest`.
        written: blob ids of all versions of patched files that any set-up wrote here.
    """

    digest: str = ""
    files: dict[str, tuple[str, str]] = field(default_factory=dict)
    written: set[str] = field(default_factory=set)

    @staticmethod
    def path(checkout: Path) -> Path:
        """Where the record of a checkout is kept: in its git folder, else in a dot-file at its top."""
        folder = git_folder(checkout)
        return folder / "gradnorm-patches.json" if folder else checkout / ".gradnorm-patches.json"

    @classmethod
    def read(cls, checkout: Path) -> Record | None:
        """The record of a checkout, or None if there is no readable one."""
        try:
            data = json.loads(cls.path(checkout).read_text(encoding="utf-8"))
            files = {path: (before, after) for path, (before, after) in data["files"].items()}
            return cls(str(data["digest"]), files, set(data["written"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def keep(self, checkout: Path, originals: dict[str, bytes | None]) -> None:
        """Save files as they were before the patches, for the checkout whose commit does not have them so."""
        for path, content in originals.items():
            if content is not None:
                replace_file(_originals(checkout) / path, content)

    def original(self, checkout: Path, path: str) -> bytes | None:
        """A file as `keep` saved it; None if it did not, or the patches added the file."""
        kept = _originals(checkout) / path
        return kept.read_bytes() if kept.is_file() else None

    def write(self, checkout: Path) -> None:
        """Save the record, all at once."""
        data = {"digest": self.digest, "files": self.files, "written": sorted(self.written)}
        replace_file(self.path(checkout), json.dumps(data, indent=1).encode())
