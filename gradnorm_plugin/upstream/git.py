"""Runs git and other commands: bounded in time, never prompting, away from the caller's own git environment."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Literal, overload

from gradnorm_plugin.upstream.record import CheckoutError


class CommandError(CheckoutError):
    """A command failed or took too long; the message is its last telling line."""


def quiet_environment() -> dict[str, str]:
    """The environment without what redirects git (set inside hooks), and with every kind of prompt turned off."""
    redirects = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_PREFIX"}
    environment = {name: value for name, value in os.environ.items() if name not in redirects}
    environment.update(GIT_TERMINAL_PROMPT="0", GIT_ASKPASS="true", SSH_ASKPASS="true", GCM_INTERACTIVE="never")
    environment.setdefault("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o ConnectTimeout=15")
    environment.update(LC_ALL="C")
    return environment


def run_command(
    arguments: list[str],
    folder: Path,
    stdin: bytes = b"",
    timeout: float = 120,
    environment: dict[str, str] | None = None,
) -> bytes:
    """Run a command in `folder` and return what it printed; its whole process group ends with the time limit (seconds).

    Raises:
        CheckoutError: if it cannot start; there is no other way then, so no one who tries several catches this.
        CommandError: if it fails or runs past `timeout`.
    """
    try:
        process = subprocess.Popen(
            arguments,
            cwd=folder,
            env=quiet_environment() if environment is None else environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            # Of our files, only the set-up's lock is inheritable: it lasts until our children have ended.
            close_fds=os.name == "nt",
        )
    except OSError as error:
        raise CheckoutError(f"cannot run `{arguments[0]}` ({error.strerror}): install it, or put it on PATH") from None
    try:
        out, err = process.communicate(stdin, timeout)
    except BaseException as error:
        _end(process)
        if isinstance(error, subprocess.TimeoutExpired):
            raise CommandError(f"`{' '.join(arguments[:3])} ...` gave no answer within {timeout:.0f} s") from None
        raise
    if process.returncode:
        raise CommandError(_telling_line(err.decode(errors="replace"), arguments[0], process.returncode))
    return out


@overload
def git(folder: Path, *arguments: str, stdin: bytes = b"", timeout: float = 120) -> str: ...


@overload
def git(folder: Path, *arguments: str, stdin: bytes = b"", timeout: float = 120, binary: Literal[True]) -> bytes: ...


def git(folder: Path, *arguments: str, stdin: bytes = b"", timeout: float = 120, binary: bool = False) -> str | bytes:
    """Run git on the repository whose top is `folder`, never on one above it, and return what it printed.

    Text comes without its last newline; `binary` returns the bytes as they are.

    Raises:
        CommandError: if git fails.
    """
    environment = {**quiet_environment(), "GIT_CEILING_DIRECTORIES": str(folder.parent)}
    options = ["-c", f"safe.directory={folder}", "-c", "credential.helper=", "-c", "core.fsmonitor=false"]
    out = run_command(["git", *options, *arguments], folder, stdin, timeout, environment)
    return out if binary else out.decode("utf-8", errors="surrogateescape").rstrip("\n")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and what it started."""
    if os.name == "nt":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _telling_line(text: str, program: str, status: int) -> str:
    """The line of an error output that says what went wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(("error:", "fatal:"))]
    return (errors or lines or [f"{program} failed with status {status}"])[-1]
