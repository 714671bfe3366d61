"""Puts `patches/*.patch` into a YOLOv5 checkout: idempotent, checked, safe to interrupt, never over a user's own edit.

What a file must become is computed in a temporary folder by `git apply`, from upstream's own content. In the checkout a
file is then either upstream's (it is replaced), already patched (it is left), written by an earlier version of our
patches (the record knows; it is replaced), or else edited by the user, which is an error.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from pathlib import Path

from gradnorm_plugin.files import remove_leftovers
from gradnorm_plugin.upstream.errors import CheckoutError
from gradnorm_plugin.upstream.git import CommandError, git
from gradnorm_plugin.upstream.record import Record, blob_id, file_id, git_folder, replace_file


def patch_files(repository: Path) -> list[Path]:
    """The patches of a repository, in the order in which they apply."""
    return sorted((repository / "patches").glob("*.patch"))


def patches_digest(patches: list[Path]) -> str:
    """A digest of the patches' names and content."""
    digest = hashlib.sha256()
    for patch in patches:
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


def apply_patches(checkout: Path, patches: list[Path], pinned: bool) -> int:
    """Bring the checkout's files to what the patches say, and return how many files that changed.

    Args:
        checkout: its top folder.
        patches: in the order in which they apply.
        pinned: whether the checkout is at the pinned commit, so that its `HEAD` says what an unpatched file is.

    Raises:
        CheckoutError: if a patch does not apply, or the user edited a file that it touches.
    """
    record = Record.read(checkout) or Record()
    paths = _all_touched(patches)
    before = {path: _original(checkout, path, patches, pinned, record) for path in paths}
    after = _patched(checkout, before, patches)
    for path in record.files.keys() - after.keys():  # touched by an earlier version of the patches only
        if file_id(checkout / path) in record.written:
            after[path] = before[path] = _head_content(checkout, path)

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
    files = {path: ids[path] for path in paths}
    digest = patches_digest(patches)
    if changed or record.files != files or record.digest != digest:
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
        head = _head_content(checkout, path)
        if _id(head) == record.files[path][0]:
            return head
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


def _patched(checkout: Path, before: dict[str, bytes | None], patches: list[Path]) -> dict[str, bytes | None]:
    """The files after all patches, computed away from the checkout."""
    with tempfile.TemporaryDirectory(prefix="gradnorm-") as name:
        folder = Path(name).resolve()
        for path, content in before.items():
            if content is not None:
                replace_file(folder / path, content)
        for patch in patches:
            try:
                git(folder, "apply", "--whitespace=nowarn", str(patch.resolve()))
            except CommandError as error:
                commit = git(checkout, "rev-parse", "HEAD") if git_folder(checkout) else "no git commit"
                raise CheckoutError(
                    f"patch {patch.name} does not apply to YOLOv5 in {checkout} ({commit}): {error}; "
                    f"use the pinned commit (unset YOLOV5_DIR), or adapt the patch"
                ) from None
        return {path: _read(folder / path) for path in before}
