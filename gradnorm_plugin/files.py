"""Whole files: each appears complete under its name, or not at all, and none is written through a link.

A file is written under a temporary name beside its target and renamed at the end. The temporary name is random and created
exclusively, so nothing can be there beforehand; renaming replaces whatever has the target's name, including a link, whose target
stays untouched. Folders are different: one that the user names may well be a link to another disk, and is followed.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SIZE_LIMIT = 256 * 1024 * 1024
"""Bytes of the largest text file that is read: a hundred times what the longest training writes."""

_PREFIX, _SUFFIX = ".gradnorm-", ".partial"
_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG), "free some space"),
    errno.ENAMETOOLONG: "take a shorter name",
}

_OF_PLACE = {*_REMEDIES, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}


class WriteError(OSError):
    """A file could not be written; what was there before is untouched."""

    def __init__(self, path: Path, cause: BaseException) -> None:
        reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
        super().__init__(getattr(cause, "errno", None), reason, str(path))

    def __str__(self) -> str:
        return f"{self.filename} cannot be written: {self.strerror}; {_remedy(self)}"


def explain(error: OSError) -> str:
    """What the file system refused, in one line: the place, the reason, and what to do."""
    if isinstance(error, WriteError) or error.filename is None:
        return str(error)
    return f"{error.filename}: {error.strerror}; {_remedy(error)}"


def is_a_matter_of_place(error: OSError) -> bool:
    """Whether another place, or more space, would solve it, so that a traceback would not help."""
    return error.errno in _OF_PLACE


def _remedy(error: OSError) -> str:
    return _REMEDIES.get(error.errno, "name another place")


class UnfinishedFile:
    """A file on its way to its name.

    Attributes:
        target: the name it is for.
        path: the temporary name to write to, with the suffix of the target; an empty file is there from the start.

    Raises:
        WriteError: if it cannot be created.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        # Without the target's own name, which may be long. `touch` fails if something is there already.
        self.path = target.with_name(f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}{target.suffix}")
        try:
            self.path.touch(exist_ok=False)
        except OSError as error:
            raise WriteError(target, error) from error

    def finish(self) -> None:
        """Give the file its name; of a file that it replaces it takes the permissions.

        Raises:
            WriteError: if that is refused; the temporary file is gone then.
        """
        try:
            before = os.lstat(self.target) if os.path.lexists(self.target) else None
            if before is not None and stat.S_ISREG(before.st_mode):
                self.path.chmod(stat.S_IMODE(before.st_mode) & 0o777)
            os.replace(self.path, self.target)
        except OSError as error:
            self.discard()
            raise WriteError(self.target, error) from error

    def discard(self) -> None:
        """Remove the temporary file; not an error if it is gone already."""
        self.path.unlink(missing_ok=True)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name to write to; the file takes the place of `path` at the end of the block, and goes if the block fails.

    Raises:
        WriteError: if the file system refuses (full, read-only, a name too long).
    """
    file = UnfinishedFile(path)
    try:
        yield file.path
    except (OSError, RuntimeError) as error:  # torch.save says RuntimeError where the disk is full
        file.discard()
        raise WriteError(path, error) from error
    except BaseException:
        file.discard()
        raise
    file.finish()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file.

    Raises:
        WriteError: if the file system refuses.
    """
    with whole_file(path) as partial:
        partial.write_bytes(content)


def write_text(path: Path, text: str, encoding: str = "utf-8") -> None:
    """Write a whole text file, with the line ends that `text` has. What the encoding cannot express, such as half a surrogate
    pair in a file's name, is written as an escape.

    Raises:
        WriteError: if the file system refuses.
    """
    write_bytes(path, text.encode(encoding, errors="backslashreplace"))


def read_bytes(path: Path, limit: int = SIZE_LIMIT) -> bytes:
    """The content of a regular file. A pipe or a device is refused without waiting for it, and so is a file without end.

    Raises:
        OSError: if it is no regular file, larger than `limit` bytes, or cannot be read.
    """
    # The opened file is examined, not the name, which may mean another file by now.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit >> 20} MB", str(path))
    return content


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that a killed process left in `folder`. Nobody may be writing there."""
    for file in folder.glob(f"{_PREFIX}*{_SUFFIX}*"):
        file.unlink(missing_ok=True)


def replace_links(folder: Path) -> None:
    """Make the files of `folder` its own: a link to a file becomes a copy of it, a link to nothing or a device goes.

    For a folder that others may have made and where somebody else's code appends to files by their names.

    Raises:
        WriteError: if a copy cannot be written.
    """
    for entry in list(folder.iterdir()) if folder.is_dir() else []:
        if not entry.is_symlink() or entry.is_dir():
            continue
        if entry.is_file():
            with whole_file(entry) as partial:
                shutil.copyfile(entry, partial)
        else:
            entry.unlink()
