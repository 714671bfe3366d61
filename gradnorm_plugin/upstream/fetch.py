"""Two ways to the pinned commit of YOLOv5: git, or the PyPI wheel that carries its files."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from gradnorm_plugin.files import write_text
from gradnorm_plugin.upstream.git import CommandError, git, quiet_environment, run_command
from gradnorm_plugin.upstream.pinned import COMMIT, TREE, WHEEL

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
