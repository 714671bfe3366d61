"""Puts `patches/*.patch` into a YOLOv5 checkout: idempotent, checked, safe to interrupt, never over a user's own edit.

What a file must become is computed in a temporary folder by `git apply`, from the pinned content. In the checkout a file is then
either upstream's (it is replaced), already patched (it is left), written by an earlier version of our patches (the record knows;
it is replaced), or else edited by the user, which at the pinned commit is an error.

In a checkout that the user named, that content is merged with what stands there: base is the file of the pinned commit, ours that
file patched, theirs what is there. Where both changed the same lines, an answer may be known: `patches/versions/*.patch` name the
conflicts that they answer and say, as a diff from the file in which theirs was taken there, what it becomes. Anything else is an
error, before any file is written.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path

from gradnorm_plugin.files import remove_leftovers
from gradnorm_plugin.upstream.git import CommandError, git
from gradnorm_plugin.upstream.pinned import COMMIT, entries
from gradnorm_plugin.upstream.record import CheckoutError, Record, blob_id, file_id, git_folder, replace_file

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


_CONFLICT = re.compile(rb"^<{40} [^\n]*\n(.*?)^\|{40} [^\n]*\n(.*?)^={40}\n(.*?)^>{40} [^\n]*\n", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class _Conflict:
    line: int
    name: str
    """A digest of what the three sides say: the same conflict in another checkout has the same name."""
    done: bool


def answer_files(patches: list[Path]) -> list[Path]:
    """The files that answer conflicts of these patches with known versions of YOLOv5."""
    return sorted(patches[0].parent.glob("versions/*.patch")) if patches else []


def merge(
    checkout: Path,
    base: dict[str, bytes | None],
    ours: dict[str, bytes | None],
    theirs: dict[str, bytes | None],
    patches: list[Path],
) -> dict[str, bytes | None]:
    """Merge the files of a checkout with the patched ones; nothing is written.

    Raises:
        CheckoutError: if there are conflicts without an answer; it names every file and line.
    """
    answers = {file: _names(file) for file in answer_files(patches)}
    merged: dict[str, bytes | None] = {}
    unanswered = []
    for path, mine in theirs.items():
        if mine is None or base[path] == mine:
            merged[path] = ours[path]
            continue
        crlf = b"\r\n" in mine
        plain = mine.replace(b"\r\n", b"\n")
        old, new = base[path] or b"", ours[path] or b""
        changing = [file for file in answers if f"+++ b/{path}\n" in file.read_text(encoding="utf-8")]
        if _is_done(old, new, plain) or any(_apply(path, plain, [file], "--reverse") is not None for file in changing):
            merged[path] = mine  # patched already, and there is no record of it
            continue
        content, conflicts = _merge_file(old, new, plain)
        if conflicts and not path.endswith(".py"):
            content = plain  # another requirements.txt is the user's affair
        elif conflicts:
            fitting = [file for file, names in answers.items() if names & {conflict.name for conflict in conflicts}]
            rest = [c for c in conflicts if not c.done and not any(c.name in answers[file] for file in fitting)]
            answered = None if rest else _apply(path, content, [file for file in changing if file in fitting])
            if answered is None:
                unanswered.append(f"{path}: " + ", ".join(f"line {c.line} ({c.name})" for c in rest or conflicts))
            content = answered or b""
        merged[path] = content.replace(b"\n", b"\r\n") if crlf else content
    if unanswered:
        raise CheckoutError(
            f"YOLOv5 in {checkout} differs from the pinned commit where our patches change it, and nothing was changed: "
            f"{'; '.join(unanswered)}; bring these lines to what v7.0 or the pinned commit has, or unset YOLOV5_DIR"
        )
    return merged


def _merge_file(base: bytes, ours: bytes, theirs: bytes) -> tuple[bytes, list[_Conflict]]:
    """The merged content with theirs in the conflicts, and the conflicts, by their lines in theirs."""
    base, ours = _as_they_write(theirs, base, ours)
    with tempfile.TemporaryDirectory(prefix="gradnorm-") as name:
        folder = Path(name).resolve()
        for side, content in (("theirs", theirs), ("base", base), ("ours", ours)):
            (folder / side).write_bytes(content)
        failure: CommandError | None = None
        try:
            git(folder, "merge-file", "--quiet", "--diff3", "--marker-size=40", "theirs", "base", "ours")
        except CommandError as error:  # the status is the number of conflicts
            failure = error
        merged = (folder / "theirs").read_bytes()
    found = list(_CONFLICT.finditer(merged))
    if failure and not found:
        raise failure
    places = {line: number for number, line in reversed(list(enumerate(theirs.split(b"\n"), 1)))}
    conflicts = []
    for match in found:
        first = match[1].split(b"\n")[0] if match[1] else merged[: match.start()].rstrip(b"\n").split(b"\n")[-1]
        done = _is_done(match[2], match[3], match[1])
        conflicts.append(_Conflict(places.get(first, 1), sha1(b"\0".join(match.groups())).hexdigest()[:8], done))
    return _CONFLICT.sub(lambda match: match[1], merged), conflicts


def _is_done(base: bytes, ours: bytes, theirs: bytes) -> bool:
    """Whether theirs have the lines that our patches put in, and none of those that they take out."""
    before, after, there = ({_plain(line) for line in side.split(b"\n") if line.strip()} for side in (base, ours, theirs))
    return bool(after - before) and after - before <= there and not (before - after) & there


def _as_they_write(theirs: bytes, base: bytes, ours: bytes) -> tuple[bytes, bytes]:
    """Base and ours with the lines that no patch changes written as theirs are: quotation marks and commas are no conflict."""
    written = {_plain(line): line for line in theirs.split(b"\n") if line.strip()}
    unchanged = set(base.split(b"\n"))
    sides = [
        b"\n".join(written.get(_plain(line), line) if line in unchanged else line for line in side.split(b"\n"))
        for side in (base, ours)
    ]
    return sides[0], sides[1]


def _plain(line: bytes) -> bytes:
    """A line without what a formatter changes, but for the indentation."""
    indent = line[: len(line) - len(line.lstrip())]
    return indent + re.sub(rb"[\s,]+", b"", line.replace(b"'", b'"'))


def _names(answers: Path) -> set[str]:
    """The conflicts that a file answers: the words of its lines that begin with `Answers`."""
    lines = answers.read_text(encoding="utf-8").splitlines()
    return {name for line in lines if line.startswith("Answers ") for name in line.split()}


def _apply(path: str, content: bytes, answers: list[Path], *options: str) -> bytes | None:
    """A file after what the answers say of it; None if they do not fit."""
    with tempfile.TemporaryDirectory(prefix="gradnorm-") as name, suppress(CommandError):
        folder = Path(name).resolve()
        replace_file(folder / path, content)
        for file in answers:
            git(folder, "apply", "--whitespace=nowarn", *options, f"--include={path}", str(file.resolve()))
        return (folder / path).read_bytes()
    return None
