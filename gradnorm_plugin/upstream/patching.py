"""Puts `patches/*.patch` into a YOLOv5 checkout: idempotent, checked, safe to interrupt, never over a user's own edit.

What a file must become is computed in a temporary folder by `git apply`, from the pinned content, and in a checkout that the user
named by a three-way merge of that with what stands there (`merging`). In the checkout a file is then either upstream's (it is
replaced), already patched (it is left), written by an earlier version of our patches (the record knows; it is replaced), or else
edited by the user, which at the pinned commit is an error.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from gradnorm_plugin.files import remove_leftovers
from gradnorm_plugin.upstream.errors import CheckoutError
from gradnorm_plugin.upstream.git import CommandError, git
from gradnorm_plugin.upstream.merging import answer_files, merge
from gradnorm_plugin.upstream.pinned import COMMIT, entries
from gradnorm_plugin.upstream.record import Record, blob_id, file_id, git_folder, replace_file

_NEEDED = (
    *("train.py", "val.py", "models/common.py", "models/experimental.py", "models/yolo.py", "utils/autobatch.py"),
    *("utils/dataloaders.py", "utils/downloads.py", "utils/general.py", "utils/metrics.py", "utils/plots.py"),
    *("utils/torch_utils.py", "utils/loggers/__init__.py"),
)
"""Files without which there is no joint training; what else our patches touch, a fork may have thrown away."""


def patch_files(repository: Path) -> list[Path]:
    """The patches of a repository, in the order in which they apply."""
    return sorted((repository / "patches").glob("*.patch"))


def patches_digest(patches: list[Path]) -> str:
    """A digest of the patches' names and content."""
    digest = hashlib.sha256()
    for patch in [*patches, *answer_files(patches)]:
        content = patch.read_bytes()
        digest.update(b"%s %d\n" % (patch.name.encode(), len(content)) + content)
    return digest.hexdigest()


def touched_files(patch: Path) -> list[str]:
    """The paths that a patch changes or adds.

    Raises:
        CheckoutError: if it deletes a file; the set-up would have no way to tell that from a file the user removed.
    """
    paths = []
    for old, new in re.findall(rb"^--- (\S+).*\n\+\+\+ (\S+)", patch.read_bytes(), flags=re.MULTILINE):
        if new == b"/dev/null":
            raise CheckoutError(f"{patch.name} deletes {old.decode()}: a patch may change or add files only")
        paths.append(new.decode().partition("/")[2])
    return paths


def patches_in_content(checkout: Path, patches: list[Path]) -> bool:
    """Whether the files of a checkout without a record hold all the patches: whether they can be taken out again."""
    return all(_without_patches(checkout, path, patches)[0] for path in _all_touched(patches))


def apply_patches(checkout: Path, patches: list[Path], pinned: Callable[[], Path] | None) -> int:
    """Bring the checkout's files to what the patches say, and return how many files that changed.

    Args:
        checkout: its top folder.
        patches: in the order in which they apply.
        pinned: for a checkout that the user named, what provides one at the pinned commit; None if it is that one itself.

    Raises:
        CheckoutError: if a patch does not fit, or the user edited a file that it touches.
    """
    record = Record.read(checkout) or Record()
    digest = patches_digest(patches)
    if pinned and record.digest == digest and all(file_id(checkout / p) == new for p, (_, new) in record.files.items()):
        return 0
    paths = _all_touched(patches)
    before = {path: _original(checkout, path, patches, pinned is None, record) for path in paths}
    after = _patched(before, patches) if pinned is None else _merged(checkout, before, patches, pinned)
    for path in record.files.keys() - after.keys():  # touched by an earlier version of the patches only
        if file_id(checkout / path) in record.written:
            after[path] = before[path] = record.original(checkout, path) if pinned else _head_content(checkout, path)

    ids = {path: (_id(before[path]), _id(after[path])) for path in after}
    edited = [p for p in ids if (found := file_id(checkout / p)) not in ids[p] and found not in record.written]
    if edited:
        named = " ".join(edited)
        raise CheckoutError(
            f"{checkout} holds changes of yours in files that our patches touch: {named}; save them (git -C {checkout} "
            f"diff {named}), undo them (git -C {checkout} checkout -- {named}) and run the set-up again"
        )
    changed = [path for path in ids if file_id(checkout / path) != ids[path][1]]
    # What is about to be written is noted first: if this run is killed, the next one does not take it for an edit.
    record.written |= {new for _, new in ids.values() if new}
    files = {path: ids[path] for path in paths if path in ids}
    if changed or record.files != files or record.digest != digest:
        if pinned:
            record.keep(checkout, {path: before[path] for path in changed})
        Record("", {**record.files, **files}, record.written).write(checkout)
        for path in changed:
            _put(checkout / path, after[path])
        Record(digest, files, record.written).write(checkout)
    for folder in {(checkout / path).parent for path in ids}:
        remove_leftovers(folder)
    return len(changed)


def _all_touched(patches: list[Path]) -> list[str]:
    return list(dict.fromkeys(path for patch in patches for path in touched_files(patch)))


def _id(content: bytes | None) -> str:
    return "" if content is None else blob_id(content)


def _put(file: Path, content: bytes | None) -> None:
    if content is None:
        file.unlink(missing_ok=True)
    else:
        replace_file(file, content)


def _read(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None


def _head_content(checkout: Path, path: str) -> bytes | None:
    """A file as the checkout's commit has it; None if the commit, or a checkout without git, has none."""
    if git_folder(checkout) is None or not git(checkout, "ls-tree", "HEAD", "--", path):
        return None
    return git(checkout, "cat-file", "blob", f"HEAD:{path}", binary=True)


def _original(checkout: Path, path: str, patches: list[Path], pinned: bool, record: Record) -> bytes | None:
    """A file before our patches, None if they add it."""
    if pinned:
        return _head_content(checkout, path)
    if path in record.files and file_id(checkout / path) in record.written:
        for content in (_head_content(checkout, path), record.original(checkout, path)):
            if _id(content) == record.files[path][0]:
                return content
    # In a fork, the user's commit or edit is the original: what is there now, without the patches where they are in it.
    taken_out, content = _without_patches(checkout, path, patches)
    if taken_out:
        return content
    return _read(checkout / path)


def _without_patches(checkout: Path, path: str, patches: list[Path]) -> tuple[bool, bytes | None]:
    """Take the patches out of a copy of a file: whether that worked, and what then is left of it."""
    with tempfile.TemporaryDirectory(prefix="gradnorm-") as name:
        folder = Path(name).resolve()
        content = _read(checkout / path)
        if content is None:
            return False, None
        replace_file(folder / path, content)
        for patch in reversed(patches):
            if path in touched_files(patch):
                try:
                    git(folder, "apply", "--whitespace=nowarn", "--reverse", f"--include={path}", str(patch.resolve()))
                except CommandError:
                    return False, None
        return True, _read(folder / path)


def _patched(before: dict[str, bytes | None], patches: list[Path]) -> dict[str, bytes | None]:
    """The files of the pinned commit after all patches, computed away from the checkout."""
    without = [f"--exclude={path}" for path in _all_touched(patches) if path not in before]
    with tempfile.TemporaryDirectory(prefix="gradnorm-") as name:
        folder = Path(name).resolve()
        for path, content in before.items():
            if content is not None:
                replace_file(folder / path, content)
        for patch in patches:
            try:
                git(folder, "apply", "--whitespace=nowarn", *without, str(patch.resolve()))
            except CommandError as error:
                raise CheckoutError(f"patch {patch.name} does not apply to YOLOv5 {COMMIT}: {error}") from None
        return {path: _read(folder / path) for path in before}


def _merged(
    checkout: Path, before: dict[str, bytes | None], patches: list[Path], pinned: Callable[[], Path]
) -> dict[str, bytes | None]:
    """The files of any checkout after all patches; files that it lacks and that no joint training needs are left out."""
    lacking = [path for path in _NEEDED if not (checkout / path).is_file()]
    if lacking:
        raise CheckoutError(
            f"YOLOv5 in {checkout} has no {', '.join(lacking)}: it is older than v7.0, or lacks what training needs, and is "
            f"not supported"
        )
    ids = {entry.path: entry.blob for entry in entries()}
    source: Path | None = None
    base: dict[str, bytes | None] = {}
    for path, content in before.items():
        if path not in ids:
            base[path] = None  # the patches add it
        elif content is not None:
            base[path] = content.replace(b"\r\n", b"\n")
            if _id(base[path]) != ids[path]:
                source = source or pinned()
                base[path] = _head_content(source, path)
    return merge(checkout, base, _patched(base, patches), {path: before[path] for path in base}, patches)
