"""Puts our patches into a YOLOv5 of another version: a three-way merge of each file.

Base is the file of the pinned commit, ours that file patched, theirs what stands in the user's checkout. Where both changed the
same lines, an answer may be known: `patches/versions/*.patch` name the conflicts that they answer and say, as a diff from the
file in which theirs was taken there, what it becomes. Anything else is an error, before any file is written.
"""

from __future__ import annotations

import re
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path

from gradnorm_plugin.upstream.errors import CheckoutError
from gradnorm_plugin.upstream.git import CommandError, git
from gradnorm_plugin.upstream.record import replace_file

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
