"""The set-up of `yolov5/`: real git, the real wheel, real kills. Every test works on a repository of its own."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gradnorm_plugin.files import UnfinishedFile
from gradnorm_plugin.upstream import checkout, fetch, install
from gradnorm_plugin.upstream.checkout import CheckoutError, find_checkout
from gradnorm_plugin.upstream.patching import patch_files, touched_files
from gradnorm_plugin.upstream.pinned import COMMIT, TREE, entries

SOURCE = Path(__file__).resolve().parents[1]
PATCHED = sorted({path for patch in patch_files(SOURCE) for path in touched_files(patch)})
NO_GIT_HOST = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "url./nowhere/.insteadOf", "GIT_CONFIG_VALUE_0": "https://"}
NO_INDEX = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}
AUTHOR = ("-c", "user.name=Test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false")


def git(folder: Path, *arguments: str) -> str:
    command = ["git", *AUTHOR, "-c", "protocol.file.allow=always", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def start(repository: Path, *flags: str, **environment: str) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("YOLOV5_DIR", "PYTHONPATH")}
    return subprocess.Popen(
        [sys.executable, *flags, "-m", "gradnorm_plugin", "setup"],
        cwd=repository,
        env={**kept, **NO_GIT_HOST, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(repository: Path, *flags: str, **environment: str) -> str:
    """Run the set-up, expect it to succeed, return what it printed."""
    process = start(repository, *flags, **environment)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    return out


def refuse(repository: Path, **environment: str) -> str:
    """Run the set-up, expect one line of error and status 1, return that line."""
    process = start(repository, **environment)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert err.startswith("ERROR: ") and err.count("\n") == 1, err
    return err


def unlike_the_commit(checkout: Path) -> list[str]:
    """The files of a checkout that are not, or not so, in its commit."""
    changed, added = git(checkout, "diff", "--name-only"), git(checkout, "ls-files", "--others", "--exclude-standard")
    return sorted([*changed.split(), *added.split()])


def assert_sound(repository: Path) -> None:
    """The checkout is upstream's commit, byte for byte, but for the patches; nothing else was left anywhere."""
    yolov5 = repository / "yolov5"
    assert git(yolov5, "rev-parse", "HEAD") == COMMIT
    assert git(yolov5, "rev-parse", "HEAD^{tree}") == TREE
    assert unlike_the_commit(yolov5) == PATCHED
    assert git(yolov5, "diff", "--cached", "--name-only") == ""
    assert git(repository, "status", "--porcelain") == ""
    assert not list(repository.glob(".yolov5-setup-*"))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A clone of this project with an empty `yolov5/`: what the set-up needs of it."""
    clone = tmp_path / "clone"
    junk = shutil.ignore_patterns("__pycache__")
    shutil.copytree(SOURCE / "gradnorm_plugin" / "upstream", clone / "gradnorm_plugin" / "upstream", ignore=junk)
    shutil.copytree(SOURCE / "patches", clone / "patches")
    for name in ("__init__.py", "__main__.py", "cli.py", "files.py", "names.py", "terminal.py"):
        shutil.copy(SOURCE / "gradnorm_plugin" / name, clone / "gradnorm_plugin")
    shutil.copy(SOURCE / ".gitmodules", clone)
    shutil.copy(SOURCE / ".gitignore", clone)
    (clone / "yolov5").mkdir()
    git(clone, "init", "--quiet")
    git(clone, "add", "--all")
    git(clone, "update-index", "--add", "--cacheinfo", f"160000,{COMMIT},yolov5")
    git(clone, "commit", "--quiet", "--message", "clone")
    return clone


@pytest.fixture(scope="session")
def genuine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pinned commit, rebuilt from the wheel, unpatched."""
    folder = tmp_path_factory.mktemp("genuine")
    wheel = fetch.download_wheel(folder / "download")
    install.rebuild_commit(folder / "yolov5", wheel, "https://nowhere.invalid/yolov5.git")
    return folder / "yolov5"


@pytest.fixture
def ready(repository: Path, genuine: Path) -> Path:
    """A clone that is set up."""
    (repository / "yolov5").rmdir()
    shutil.copytree(genuine, repository / "yolov5")
    run(repository)
    return repository


@pytest.fixture
def here(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The clone as the place where this process looks for YOLOv5."""
    monkeypatch.delenv("YOLOV5_DIR", raising=False)
    monkeypatch.setattr(checkout, "REPOSITORY", repository)
    monkeypatch.setattr(install, "REPOSITORY", repository)
    return repository


def test_the_wheel_gives_the_genuine_commit_with_the_standard_library_alone(repository: Path) -> None:
    run(repository, "-S")  # no site-packages: no third-party module, and not even pip
    assert_sound(repository)
    staged = git(repository / "yolov5", "ls-files", "--stage", "--full-name").splitlines()
    assert staged == [f"{entry.mode} {entry.blob} 0\t{entry.path}" for entry in entries()]
    for entry in entries():
        if not entry.path.startswith("."):
            executable = bool((repository / "yolov5" / entry.path).stat().st_mode & 0o100)
            assert executable == (entry.mode == "100755"), entry.path


def test_the_genuine_checkout_is_clean_before_the_patches(genuine: Path) -> None:
    assert git(genuine, "status", "--porcelain") == ""


def test_a_second_run_does_nothing_and_says_so(ready: Path) -> None:
    times = {path: path.stat().st_mtime_ns for path in (ready / "yolov5").rglob("*.py")}
    assert "already patched, nothing to do" in run(ready, **NO_INDEX)
    assert times == {path: path.stat().st_mtime_ns for path in (ready / "yolov5").rglob("*.py")}
    assert_sound(ready)


def test_what_training_writes_does_not_show_in_git_status(ready: Path) -> None:
    for name in ("runs/train/exp/weights/last.pt", "yolov5s.onnx", "models/__pycache__/yolo.pyc", "data/x.cache"):
        (ready / "yolov5" / name).parent.mkdir(parents=True, exist_ok=True)
        (ready / "yolov5" / name).write_text("x")
    assert_sound(ready)
    git(ready, "add", "--all")
    assert git(ready, "status", "--porcelain") == ""


def test_killed_at_any_moment_and_run_again_it_ends_well(repository: Path) -> None:
    chance = random.Random(0)
    for _ in range(6):
        process = start(repository)
        time.sleep(chance.uniform(0.05, 2.0))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if chance.random() < 0.5:
            shutil.rmtree(repository / "yolov5", ignore_errors=True)
    run(repository)
    assert_sound(repository)


def test_two_at_once_give_one_sound_checkout(repository: Path) -> None:
    both = [start(repository), start(repository)]
    printed = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    assert sum("nothing to do" in out for out, _ in printed) == 1
    assert_sound(repository)


def test_a_run_that_was_killed_while_patching_is_finished(ready: Path) -> None:
    yolov5 = ready / "yolov5"
    git(yolov5, "checkout", "--", PATCHED[0])
    record = yolov5 / ".git" / "gradnorm-patches.json"
    digest = record.read_text()
    record.unlink()
    UnfinishedFile(yolov5 / PATCHED[0]).path.write_text("half a fi")
    assert "1 files changed" in run(ready)
    assert record.read_text() == digest
    assert not list(yolov5.rglob(".gradnorm-*.partial*"))
    assert_sound(ready)


@pytest.mark.parametrize("pointer", ["gitdir: ../.git/modules/yolov5\n", ""], ids=["dangling", "empty"])
def test_a_submodule_file_that_leads_nowhere_is_replaced(repository: Path, genuine: Path, pointer: str) -> None:
    (repository / "yolov5" / ".git").write_text(pointer)
    run(repository)
    assert_sound(repository)


def test_a_submodule_without_a_commit_is_replaced(repository: Path) -> None:
    store = repository / ".git" / "modules" / "yolov5"
    store.parent.mkdir()
    git(repository, "init", "--quiet", "--separate-git-dir", str(store), "yolov5")
    (store / "objects" / "pack" / "tmp_pack_x").write_bytes(b"PACK")
    run(repository)
    assert_sound(repository)


def test_offline_with_nothing_cached_is_one_clear_error(repository: Path) -> None:
    error = refuse(repository, **NO_INDEX)
    assert "could not be fetched" in error and "check network and proxy" in error and "YOLOV5_DIR" in error
    assert not list((repository / "yolov5").iterdir())
    assert not list(repository.glob(".yolov5-setup-*"))


def test_a_closed_package_index_is_one_clear_error(repository: Path) -> None:
    closed = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}
    assert "PyPI wheel: ERROR: No matching distribution" in refuse(repository, **closed)


def test_a_machine_without_git_is_told_so(repository: Path, tmp_path: Path) -> None:
    assert "cannot run `git`" in refuse(repository, PATH=str(tmp_path))


def test_a_folder_that_is_not_ours_is_left_alone(repository: Path) -> None:
    (repository / "yolov5" / "thesis.txt").write_text("years of work")
    assert "is no git checkout: move it away" in refuse(repository)
    assert (repository / "yolov5" / "thesis.txt").read_text() == "years of work"


def test_another_commit_is_refused_with_both_ids(ready: Path) -> None:
    yolov5 = ready / "yolov5"
    other = git(yolov5, "commit-tree", "-m", "other", "-p", COMMIT, f"{COMMIT}:models")
    git(yolov5, "update-ref", "--no-deref", "HEAD", other)
    git(yolov5, "read-tree", other)
    error = refuse(ready)
    assert other in error and COMMIT in error and "YOLOV5_DIR" in error


def test_missing_files_are_named(ready: Path) -> None:
    (ready / "yolov5" / "models" / "yolov5s.yaml").unlink()
    error = refuse(ready)
    assert "models/yolov5s.yaml" in error and "checkout -- ." in error


def test_a_users_change_of_a_patched_file_is_refused_and_kept(ready: Path) -> None:
    file = ready / "yolov5" / PATCHED[0]
    edited = file.read_text() + "\n# mine\n"
    file.write_text(edited)
    error = refuse(ready)
    assert PATCHED[0] in error and f"checkout -- {PATCHED[0]}" in error
    assert file.read_text() == edited


def test_a_users_change_elsewhere_is_no_matter(ready: Path) -> None:
    file = ready / "yolov5" / "data" / "coco128.yaml"
    file.write_text("mine\n")
    run(ready)
    assert file.read_text() == "mine\n"


def test_changed_patches_move_the_checkout_on_and_back(ready: Path) -> None:
    yolov5 = ready / "yolov5"
    before = git(yolov5, "diff")
    file = yolov5 / PATCHED[0]
    first = file.read_text().splitlines()[0]
    extra = ready / "patches" / "9999-extra.patch"
    body = "--- a/{0}\n+++ b/{0}\n@@ -0,0 +1,1 @@\n+{1}\n"
    added = body.format("added.py", "ADDED = 1").replace("--- a/added.py", "--- /dev/null")
    extra.write_text(
        f"Why.\n\n--- a/{PATCHED[0]}\n+++ b/{PATCHED[0]}\n@@ -1,1 +1,2 @@\n+# extra\n {first}\n"
        f"diff --git a/added.py b/added.py\nnew file mode 100644\n{added}"
    )
    assert "2 files changed" in run(ready)
    assert file.read_text().splitlines()[:2] == ["# extra", first]
    assert (yolov5 / "added.py").read_text() == "ADDED = 1\n"
    extra.unlink()
    assert "2 files changed" in run(ready)
    assert not (yolov5 / "added.py").exists()
    assert git(yolov5, "diff") == before


def test_a_patch_that_does_not_apply_is_named_and_nothing_is_changed(ready: Path) -> None:
    before = git(ready / "yolov5", "diff")
    wrong = "--- a/train.py\n+++ b/train.py\n@@ -1,1 +1,1 @@\n-never there\n+nor here\n"
    (ready / "patches" / "9999-wrong.patch").write_text(wrong)
    error = refuse(ready)
    assert "9999-wrong.patch" in error and COMMIT in error and "train.py" in error
    assert git(ready / "yolov5", "diff") == before


def test_find_checkout_names_the_command(here: Path, genuine: Path) -> None:
    with pytest.raises(CheckoutError, match=r"YOLOv5 is missing in .*yolov5: run `python -m gradnorm_plugin setup`"):
        find_checkout()
    (here / "yolov5").rmdir()
    shutil.copytree(genuine, here / "yolov5")
    with pytest.raises(CheckoutError, match=r"is not patched: run `python -m gradnorm_plugin setup`"):
        find_checkout()
    run(here)
    assert find_checkout() == here / "yolov5"
    (here / "yolov5" / PATCHED[0]).write_text("an edit of a patched file is the user's to make\n")
    assert find_checkout() == here / "yolov5"
    git(here / "yolov5", "checkout", "--", PATCHED[0])
    with pytest.raises(CheckoutError, match=r"lost its patch .*: run `python -m gradnorm_plugin setup`"):
        find_checkout()
    run(here)
    (here / "patches" / "9999-extra.patch").write_text("--- a/a\n+++ b/a\n")
    with pytest.raises(CheckoutError, match="out of date: run"):
        find_checkout()


def test_find_checkout_is_quick(here: Path, genuine: Path) -> None:
    (here / "yolov5").rmdir()
    shutil.copytree(genuine, here / "yolov5")
    run(here)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        find_checkout()
        times.append(time.perf_counter() - began)
    assert min(times) < 0.02


def test_a_fork_without_git_is_patched_over_its_own_edits(
    here: Path, genuine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fork = tmp_path / "fork"
    shutil.copytree(genuine, fork, ignore=shutil.ignore_patterns(".git"))
    file = fork / PATCHED[0]
    file.write_text(file.read_text() + "\n# the fork's own line\n")
    monkeypatch.setenv("YOLOV5_DIR", str(fork))
    with pytest.raises(CheckoutError, match="is not patched"):
        find_checkout()
    assert f"{len(PATCHED)} files changed" in run(here, YOLOV5_DIR=str(fork))
    assert find_checkout() == fork
    assert file.read_text().endswith("# the fork's own line\n")
    assert "nothing to do" in run(here, YOLOV5_DIR=str(fork))
    (fork / ".gradnorm-patches.json").unlink()  # patched by hand: its content says so
    assert find_checkout() == fork


def test_a_fork_at_another_commit_is_patched(here: Path, genuine: Path, tmp_path: Path) -> None:
    fork = tmp_path / "fork"
    shutil.copytree(genuine, fork, ignore=shutil.ignore_patterns(".git"))
    (fork / PATCHED[0]).write_text((fork / PATCHED[0]).read_text() + "\n# the fork's own line\n")
    git(fork, "init", "--quiet")
    git(fork, "add", "--all", "--force")
    git(fork, "commit", "--quiet", "--message", "fork")
    assert f"{len(PATCHED)} files changed" in run(here, YOLOV5_DIR=str(fork))
    assert unlike_the_commit(fork) == PATCHED
    git(fork, "commit", "--quiet", "--all", "--message", "patched")
    assert "nothing to do" in run(here, YOLOV5_DIR=str(fork))


def fork_of(genuine: Path, fork: Path, *changes: tuple[str, str, str]) -> Path:
    """A copy of the pinned files, without git, in which each change (file, old, new) is made."""
    shutil.copytree(genuine, fork, ignore=shutil.ignore_patterns(".git"))
    for name, old, new in changes:
        text = (fork / name).read_text()
        assert old in text
        (fork / name).write_text(text.replace(old, new))
    return fork


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


OTHER_LOAD = ("models/experimental.py", "map_location='cpu')", "map_location='meta')")  # in the very line that a patch changes
OTHER_TYPE = ("models/common.py", "from torch.cuda import amp", "from torch.cuda import amp as amp")


def test_what_a_fork_lacks_or_has_otherwise_is_no_matter(
    ready: Path, genuine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows line ends, no `segment/` and `classify/`, other requirements, quotation marks and edits of its own; and undone."""
    requote = ("train.py", "torch.load(weights, map_location='cpu')", 'torch.load(weights, map_location="cpu")')
    fork = fork_of(genuine, tmp_path / "fork", requote, ("train.py", "def train(", "MINE = 1\n\n\ndef train("))
    for name in ("segment", "classify", "utils/aws"):
        shutil.rmtree(fork / name)
    for name in ("train.py", "models/common.py"):
        (fork / name).write_bytes((fork / name).read_bytes().replace(b"\n", b"\r\n"))
    (fork / "requirements.txt").write_text("torch\n")
    run(ready, YOLOV5_DIR=str(fork))
    train = (fork / "train.py").read_bytes()
    assert b"load_model(weights)" in train and b"MINE = 1" in train and train.count(b"\n") == train.count(b"\r\n")
    assert (fork / "requirements.txt").read_text() == "torch\n" and not (fork / "segment").exists()
    monkeypatch.setattr(checkout, "REPOSITORY", ready)
    monkeypatch.setenv("YOLOV5_DIR", str(fork))
    assert find_checkout() == fork
    assert "nothing to do" in run(ready, YOLOV5_DIR=str(fork))

    merged = contents(fork)
    extra = ready / "patches" / "9999-extra.patch"
    extra.write_text(
        "Why.\n\n--- a/val.py\n+++ b/val.py\n@@ -1,1 +1,2 @@\n+# extra\n # YOLOv5 🚀 by Ultralytics, AGPL-3.0 license\n"
    )
    assert "1 files changed" in run(ready, YOLOV5_DIR=str(fork))
    assert (fork / "val.py").read_text().startswith("# extra\n")
    extra.unlink()
    assert "1 files changed" in run(ready, YOLOV5_DIR=str(fork))
    assert {path: merged[path] for path in merged if path.suffix == ".py"} == {
        path: content for path, content in contents(fork).items() if path.suffix == ".py"
    }
    (fork / ".gradnorm-patches.json").unlink()  # as in a clone of the fork, with the patches committed
    assert "nothing to do" in run(ready, YOLOV5_DIR=str(fork))


def test_a_conflict_names_files_and_lines_and_nothing_is_done(ready: Path, genuine: Path, tmp_path: Path) -> None:
    fork = fork_of(genuine, tmp_path / "fork", OTHER_LOAD, OTHER_TYPE)
    before = contents(fork)
    error = refuse(ready, YOLOV5_DIR=str(fork))
    for name, _, new in (OTHER_LOAD, OTHER_TYPE):
        line = next(number for number, text in enumerate((fork / name).read_text().splitlines(), 1) if new in text)
        assert f"{name}: line {line} (" in error
    assert str(fork) in error and "nothing was changed" in error
    assert contents(fork) == before


def test_a_conflict_with_an_answer_is_none(ready: Path, genuine: Path, tmp_path: Path) -> None:
    fork = fork_of(genuine, tmp_path / "fork", OTHER_LOAD)
    name = refuse(ready, YOLOV5_DIR=str(fork)).partition("(")[2].partition(")")[0]
    lines = (fork / OTHER_LOAD[0]).read_text().splitlines()
    at = next(number for number, line in enumerate(lines) if OTHER_LOAD[2] in line)
    answer = ready / "patches" / "versions" / "fork.patch"
    answer.write_text(
        f"Why.\n\nAnswers {name}\n\n--- a/{OTHER_LOAD[0]}\n+++ b/{OTHER_LOAD[0]}\n"
        f"@@ -{at},3 +{at},3 @@\n {lines[at - 1]}\n-{lines[at]}\n"
        f"+        ckpt = load_model(attempt_download(w), 'meta')\n {lines[at + 1]}\n"
    )
    run(ready, YOLOV5_DIR=str(fork))
    assert "load_model(attempt_download(w), 'meta')" in (fork / OTHER_LOAD[0]).read_text()
    (fork / ".gradnorm-patches.json").unlink()
    assert "nothing to do" in run(ready, YOLOV5_DIR=str(fork))


def test_a_yolov5_that_is_too_old_is_told_so(ready: Path, genuine: Path, tmp_path: Path) -> None:
    fork = fork_of(genuine, tmp_path / "fork")
    (fork / "utils" / "dataloaders.py").unlink()
    assert "has no utils/dataloaders.py: it is older than v7.0, or lacks" in refuse(ready, YOLOV5_DIR=str(fork))


def test_a_wrong_yolov5_dir_is_named(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "YOLOV5_DIR=/nowhere is no YOLOv5 checkout" in refuse(repository, YOLOV5_DIR="/nowhere")
    monkeypatch.setenv("YOLOV5_DIR", "/nowhere")
    with pytest.raises(CheckoutError, match="YOLOV5_DIR=/nowhere is no YOLOv5 checkout"):
        find_checkout()


@pytest.fixture
def origin(here: Path, genuine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A repository to fetch from, of upstream's files, with the pin moved to it: the genuine one lacks dot-files."""
    served = tmp_path / "origin"
    shutil.copytree(genuine, served, ignore=shutil.ignore_patterns(".git"))
    git(served, "init", "--quiet")
    git(served, "add", "--all", "--force")
    git(served, "commit", "--quiet", "--message", "upstream")
    commit, tree = git(served, "rev-parse", "HEAD"), git(served, "rev-parse", "HEAD^{tree}")
    git(served, "commit", "--quiet", "--allow-empty", "--message", "upstream has moved on")
    for module in (fetch, install):
        monkeypatch.setattr(module, "COMMIT", commit)
        monkeypatch.setattr(module, "TREE", tree)
    git(here, "config", "--file", ".gitmodules", "submodule.yolov5.url", str(served))
    git(here, "add", ".gitmodules")
    git(here, "update-index", "--cacheinfo", f"160000,{commit},yolov5")
    git(here, "commit", "--quiet", "--message", "pinned to it")
    for name, value in NO_INDEX.items():
        monkeypatch.setenv(name, value)
    return commit


def assert_fetched(repository: Path, commit: str) -> None:
    assert git(repository / "yolov5", "rev-parse", "HEAD") == commit
    assert unlike_the_commit(repository / "yolov5") == PATCHED
    assert git(repository, "status", "--porcelain") == ""


def test_git_gives_the_pinned_commit_alone(here: Path, origin: str) -> None:
    install.setup()
    assert_fetched(here, origin)
    assert git(here / "yolov5", "rev-list", "--count", "HEAD") == "1"


def test_a_submodule_that_git_made_is_used(here: Path, origin: str) -> None:
    git(here, "submodule", "update", "--init", "yolov5")
    assert (here / "yolov5" / ".git").is_file()
    install.setup()
    assert_fetched(here, origin)
    assert find_checkout() == here / "yolov5"
    assert "runs/" in (here / ".git" / "modules" / "yolov5" / "info" / "exclude").read_text().splitlines()


def test_the_stored_submodule_is_used_when_its_url_is_gone(here: Path, origin: str, tmp_path: Path) -> None:
    git(here, "submodule", "update", "--init", "yolov5")
    git(here, "submodule", "deinit", "--force", "yolov5")
    shutil.rmtree(tmp_path / "origin")
    install.setup()
    assert_fetched(here, origin)


@pytest.mark.parametrize("moment", ["before the index", "before HEAD"])
def test_a_submodule_checkout_that_was_cut_short_is_finished(here: Path, origin: str, moment: str) -> None:
    git(here, "submodule", "update", "--init", "yolov5")
    store = here / ".git" / "modules" / "yolov5"
    git(here / "yolov5", "update-ref", "--no-deref", "HEAD", "refs/remotes/origin/HEAD")
    if moment == "before the index":
        (store / "index").unlink()
        (store / "index.lock").write_bytes(b"")
        shutil.rmtree(here / "yolov5" / "utils")
        (here / "yolov5" / "train.py").write_text("half a fi")
    install.setup()
    assert_fetched(here, origin)
