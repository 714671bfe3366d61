"""The pinned commit of YOLOv5, by git or rebuilt from the PyPI wheel that carries its files; git's ids vouch for every byte."""

from __future__ import annotations

import importlib.util
import os
import sys
import zipfile
from pathlib import Path

from gradnorm_plugin.files import write_text
from gradnorm_plugin.upstream.git import CommandError, git, quiet_environment, run_command
from gradnorm_plugin.upstream.pinned import COMMIT, COMMIT_OBJECT, TREE, WHEEL, WHEEL_FOLDER, WHEEL_PATCH, Entry, entries

# What upstream's .gitignore would keep out of `git status`: it is not there when the wheel was the source.
_EXCLUDED = ("__pycache__/", "*.py[cod]", "runs/", "*.pt", "*.onnx", "*.torchscript", "*.cache", ".gradnorm-*")

_PROBE_SECONDS, _FETCH_SECONDS, _PIP_SECONDS = 20, 180, 600


def upstream_url(repository: Path) -> str:
    """Where the submodule comes from: the user's git configuration if it says so, else `.gitmodules`.

    Raises:
        CommandError: if neither names it.
    """
    for where in ([], ["--file", ".gitmodules"]):
        try:
            return git(repository, "config", *where, "--get", "submodule.yolov5.url")
        except CommandError:
            continue
    raise CommandError(f"{repository / '.gitmodules'} does not name the url of submodule yolov5")


def new_repository(folder: Path, url: str) -> None:
    """Make an empty git repository that ignores what training writes and leaves line ends alone.

    Upstream's `train.py` asks for the url of `origin` as soon as it is imported, so there has to be one.
    """
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet", "--template=", "--object-format=sha1")
    git(folder, "remote", "add", "origin", url)
    git(folder, "config", "core.autocrlf", "false")
    exclude(folder)


def exclude(checkout: Path) -> None:
    """Keep what training writes out of the checkout's `git status`."""
    file = Path(git(checkout, "rev-parse", "--git-path", "info/exclude"))
    file = file if file.is_absolute() else checkout / file
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    missing = [line for line in _EXCLUDED if line not in lines]
    if missing:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, "\n".join([*lines, *missing]) + "\n")


def fetch_commit(folder: Path, repository: Path) -> None:
    """Fetch the pinned commit, alone, with git: from the repository's own submodule store if it is there, else its url.

    It brings what `git submodule update --init --depth 1 yolov5` would, into a folder of its own: that command, cut
    short, leaves a half-made submodule behind.

    Raises:
        CommandError: if git cannot get it.
    """
    url = upstream_url(repository)
    source = url
    store = repository / ".git" / "modules" / "yolov5"
    if _has_commit(store):
        source = str(store)
    else:
        git(repository, "ls-remote", "--quiet", url, "HEAD", timeout=_PROBE_SECONDS)
    new_repository(folder, url)
    git(folder, "fetch", "--quiet", "--depth=1", "--no-tags", source, COMMIT, timeout=_FETCH_SECONDS)
    git(folder, "-c", "core.hooksPath=/dev/null", "checkout", "--quiet", "--detach", COMMIT)
    check_genuine(folder)


def check_genuine(folder: Path) -> None:
    """Ask git whether the checkout is the pinned commit with the pinned tree.

    Raises:
        CommandError: if it is not.
    """
    commit, tree = git(folder, "rev-parse", "HEAD^{commit}"), git(folder, "rev-parse", "HEAD^{tree}")
    if (commit, tree) != (COMMIT, TREE):
        raise CommandError(f"commit {commit} with tree {tree} was found, {COMMIT} with {TREE} was expected")


def download_wheel(folder: Path) -> Path:
    """Download the wheel into `folder`, with the pip of this Python or of a temporary environment, and check its hash.

    Raises:
        CommandError: if pip cannot get it.
    """
    folder.mkdir(parents=True)
    python = sys.executable
    if importlib.util.find_spec("pip") is None:
        run_command([python, "-m", "venv", str(folder / "venv")], folder)
        python = str(folder / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    requirements = folder / "requirements.txt"
    requirements.write_text(WHEEL + "\n", encoding="utf-8")
    command = [python, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check", "--retries=1"]
    command += ["--no-deps", "--only-binary=:all:", "--require-hashes", "--dest=wheel", f"--requirement={requirements}"]
    run_command(command, folder, timeout=_PIP_SECONDS, environment={**quiet_environment(), "PIP_REQUIRE_VIRTUALENV": "0"})
    wheels = list((folder / "wheel").glob("*.whl"))
    if len(wheels) != 1:
        raise CommandError(f"pip brought {len(wheels)} wheels instead of one")
    return wheels[0]


def _has_commit(store: Path) -> bool:
    try:
        return store.is_dir() and bool(git(store, "--git-dir=.", "rev-parse", "--verify", f"{COMMIT}^{{tree}}"))
    except CommandError:
        return False


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
