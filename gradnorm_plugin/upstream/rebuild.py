"""Rebuilds the pinned commit of YOLOv5 from the PyPI wheel that carries its files; git's ids vouch for every byte."""

from __future__ import annotations

import zipfile
from pathlib import Path

from gradnorm_plugin.upstream.fetch import check_genuine, new_repository
from gradnorm_plugin.upstream.git import CommandError, git
from gradnorm_plugin.upstream.pinned import COMMIT_OBJECT, TREE, WHEEL_FOLDER, WHEEL_PATCH, Entry, entries


def rebuild_commit(folder: Path, wheel: Path, url: str) -> None:
    """Make `folder` a git checkout of the pinned commit from the wheel's files.

    The wheel lacks upstream's dot-files: the index lists them, so that the tree is complete, and keeps them out of the
    work tree.

    Raises:
        CommandError: if any file, the tree or the commit is not upstream's.
    """
    new_repository(folder, url)
    listed = entries()
    present = _unpack(wheel, folder, listed)
    absent = [entry for entry in listed if entry not in present]
    lacking = [entry.path for entry in absent if not entry.path.startswith(".")]
    if lacking:
        raise CommandError(f"{wheel.name} lacks {', '.join(lacking[:5])}")
    git(folder, "apply", "--whitespace=nowarn", str(WHEEL_PATCH))

    paths = "\n".join(entry.path for entry in present)
    found = git(folder, "hash-object", "-w", "--no-filters", "--stdin-paths", stdin=paths.encode()).splitlines()
    wrong = [entry.path for entry, blob in zip(present, found, strict=True) if blob != entry.blob]
    if wrong:
        raise CommandError(f"{wheel.name} has other files than upstream: {', '.join(wrong[:5])}")

    index = "".join(f"{entry.mode} {entry.blob}\t{entry.path}\n" for entry in listed)
    git(folder, "update-index", "--add", "--index-info", stdin=index.encode())
    git(folder, "update-index", "--skip-worktree", "--stdin", stdin="".join(f"{e.path}\n" for e in absent).encode())
    tree = git(folder, "write-tree", "--missing-ok")
    if tree != TREE:
        raise CommandError(f"the files of {wheel.name} make tree {tree}, not {TREE}")
    commit = git(folder, "hash-object", "-t", "commit", "-w", "--stdin", stdin=COMMIT_OBJECT.read_bytes())
    (folder / ".git" / "shallow").write_text(commit + "\n", encoding="utf-8")  # git: its history is elsewhere
    git(folder, "update-ref", "--no-deref", "HEAD", commit)
    git(folder, "update-index", "-q", "--refresh")
    check_genuine(folder)


def _unpack(wheel: Path, folder: Path, listed: list[Entry]) -> list[Entry]:
    """Write those files of the tree that the wheel has, with the tree's modes, and return their entries."""
    present = []
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        for entry in listed:
            if WHEEL_FOLDER + entry.path in names:
                file = folder / entry.path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(archive.read(WHEEL_FOLDER + entry.path))
                file.chmod(0o755 if entry.mode == "100755" else 0o644)
                present.append(entry)
    return present
