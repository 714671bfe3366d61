"""The set-up: a genuine YOLOv5 in `yolov5/`, patched. Each step is all or nothing: run it again if cut short."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gradnorm_plugin.upstream.checkout import REPOSITORY, checkout_folder, is_yolov5
from gradnorm_plugin.upstream.fetch import check_genuine, download_wheel, exclude, fetch_commit, rebuild_commit, upstream_url
from gradnorm_plugin.upstream.git import CommandError, git
from gradnorm_plugin.upstream.patching import apply_patches, patch_files
from gradnorm_plugin.upstream.pinned import COMMIT, TREE
from gradnorm_plugin.upstream.record import CheckoutError, git_folder

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_WAIT_SECONDS = 900


def setup() -> Path:
    """Fetch YOLOv5 if it is not there, put our patches in, and return its folder. A second run does nothing.

    Raises:
        CheckoutError: if it cannot be had, is not what it should be, or the user changed files that we patch.
    """
    patches = patch_files(REPOSITORY)
    if not patches:
        raise CheckoutError(
            f"{REPOSITORY / 'patches'} holds no patches: install the wheel, or from a clone with `pip install -e .`"
        )
    folder, named = checkout_folder()
    if named and not is_yolov5(folder):
        raise CheckoutError(f"YOLOV5_DIR={folder} is no YOLOv5 checkout: set it to one, or unset it")
    waiting = "another set-up is at work here, waiting for it ..."
    with folder_lock(REPOSITORY, _WAIT_SECONDS, lambda: _say(waiting)) as locked:
        if locked:
            for leftover in REPOSITORY.glob(".yolov5-setup-*"):  # of a set-up that was killed: with the lock, no one else's
                _remove(leftover)
        try:
            if not named:
                _provide(folder)
            changed = apply_patches(folder, patches, _pinned if named else None)
        except OSError as error:
            raise CheckoutError(f"cannot set up YOLOv5 in {folder}: {error}") from None
    state = f"{len(patches)} patches applied, {changed} files changed" if changed else "already patched, nothing to do"
    _say(f"YOLOv5 {'' if named else COMMIT[:7] + ' '}in {folder}: {state}")
    return folder


def _pinned() -> Path:
    """The checkout at the pinned commit, fetched if it is not there."""
    folder = (REPOSITORY / "yolov5").resolve()
    _provide(folder)
    return folder


def _provide(folder: Path) -> None:
    """Bring the pinned commit to `folder`, where nothing, a whole checkout or a half-made one may be."""
    if folder.is_dir() and any(folder.iterdir()):
        _mend(folder)
    elif folder.exists() and not folder.is_dir():
        raise CheckoutError(f"{folder} is a file, and YOLOv5 belongs there: move it away")
    if not folder.is_dir() or not any(folder.iterdir()):
        _fetch(folder)
    check_genuine(folder)
    gone = git(folder, "ls-files", "--deleted").splitlines()
    if gone:
        raise CheckoutError(
            f"{len(gone)} files of YOLOv5 are missing in {folder} ({', '.join(gone[:3])} ...): "
            f"bring them back with `git -C {folder} checkout -- .`, which also undoes changes, and run the set-up again"
        )
    exclude(folder)


def _mend(folder: Path) -> None:
    """Bring a folder that holds something to a whole checkout or to nothing, where that costs the user nothing."""
    if not (folder / ".git").exists():
        raise CheckoutError(f"{folder} holds files but is no git checkout: move it away, or use it with YOLOV5_DIR={folder}")
    store = git_folder(folder)
    head = _resolve(folder, "HEAD^{commit}") if store else ""
    if head == COMMIT:
        return
    if store and _checkout_was_cut_short(folder, store):
        (store / "index.lock").unlink(missing_ok=True)
        force = [] if (store / "index").is_file() else ["--force"]  # without an index, no one has worked here
        git(folder, "checkout", "--quiet", *force, "--detach", COMMIT)
        _say(f"finished a checkout in {folder} that was cut short")
    elif not head and [entry.name for entry in folder.iterdir()] == [".git"] and not _has_refs(folder, store):
        _remove(folder / ".git")
        _say(f"removed a submodule in {folder} that was cut short")
    else:
        raise CheckoutError(
            f"{folder} is at commit {head or 'none'}, and {COMMIT} is needed: run `git -C {folder} fetch --depth=1 "
            f"origin {COMMIT}` and `git -C {folder} checkout {COMMIT}`, or keep it and use it with YOLOV5_DIR={folder}"
        )


def _fetch(folder: Path) -> None:
    """Build the checkout beside `folder` by the one way or the other, then rename it into place."""
    work = folder.parent / f".yolov5-setup-{os.getpid()}"
    built = work / "checkout"
    try:
        work.mkdir()
        try:
            _say(f"fetching YOLOv5 {COMMIT[:7]} with git ...")
            fetch_commit(built, REPOSITORY)
        except CommandError as git_error:
            _say(f"git: {git_error}")
            _say(f"rebuilding YOLOv5 {COMMIT[:7]} from its PyPI wheel ...")
            _remove(built)
            try:
                rebuild_commit(built, download_wheel(work / "download"), upstream_url(REPOSITORY))
            except CommandError as pip_error:
                raise CheckoutError(
                    f"YOLOv5 could not be fetched (git: {git_error}; PyPI wheel: {pip_error}): check network "
                    f"and proxy and run the set-up again, or set YOLOV5_DIR to a checkout that you have"
                ) from None
        if folder.is_dir():
            folder.rmdir()
        built.rename(folder)
    finally:
        _remove(work)


def _checkout_was_cut_short(folder: Path, store: Path) -> bool:
    """Whether git has the pinned commit here, and ended before it wrote the index, or right before it moved `HEAD`."""
    if not _resolve(folder, f"{COMMIT}^{{tree}}"):
        return False
    return not (store / "index").is_file() or git(folder, "write-tree", "--missing-ok") == TREE


def _resolve(folder: Path, name: str) -> str:
    """The id of an object in the checkout, or the empty string."""
    try:
        return git(folder, "rev-parse", "--verify", "--quiet", name)
    except CommandError:
        return ""


def _has_refs(folder: Path, store: Path | None) -> bool:
    """Whether the git folder of a checkout leads to any commit, so that there is work in it to lose."""
    refs = (store or folder / ".git") / "refs"
    return (refs.parent / "packed-refs").exists() or any(path.is_file() for path in refs.rglob("*"))


def _remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _say(text: str) -> None:
    prefix = "\033[34m\033[1msetup:\033[0m" if sys.stdout.isatty() else "setup:"
    print(f"{prefix} {text}", flush=True)


@contextmanager
def folder_lock(folder: Path, wait_seconds: float, on_wait: Callable[[], None]) -> Iterator[bool]:
    """Hold the lock on `folder` for the length of the block; yields False where the system has no such lock.

    The commands that the holder runs inherit it, so git or pip that outlive a killed set-up are waited for.

    Args:
        folder: an existing folder; nothing is written to it.
        wait_seconds: how long to wait for another holder.
        on_wait: called once if there is another holder.

    Raises:
        CheckoutError: if the other holder does not end in time.
    """
    handle = os.open(folder, os.O_RDONLY) if fcntl else -1
    try:
        held = fcntl is not None and _acquire(handle, folder, wait_seconds, on_wait)
        if held:
            os.set_inheritable(handle, True)
        yield held
    finally:
        if handle >= 0:
            os.close(handle)


def _acquire(handle: int, folder: Path, wait_seconds: float, on_wait: Callable[[], None]) -> bool:
    deadline = time.monotonic() + wait_seconds
    waiting = False
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise CheckoutError(
                    f"another set-up has been at work in {folder} for {wait_seconds:.0f} s: end it, run this one again"
                ) from None
            if not waiting:
                on_wait()
            waiting = True
            time.sleep(0.2)
        except OSError:  # a file system without locks
            return False
