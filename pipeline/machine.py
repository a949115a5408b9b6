"""The machine's refusals: files that are none, a full disk, missing rights, and limits that are used up."""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path

from pipeline.errors import PipelineError

_KINDS = {stat.S_ISDIR: "folder", stat.S_ISFIFO: "pipe", stat.S_ISSOCK: "socket"}
_SPACE = "free some space; the same command goes on from what was saved"
_RIGHTS = "give this user the right to it, or choose another place"
_HANDLES = "raise the limit with ulimit -n, or lower train.workers; the same command goes on from what was saved"
_HANDLES_NEEDED, _HANDLES_WANTED = 64, 4096  # macOS allows 256, unless a process asks for more
_PROCESSES = "raise the limit with ulimit -u, or end other programs; the same command goes on from what was saved"
_REMEDIES = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EROFS: _RIGHTS,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EMFILE: _HANDLES,
    errno.ENFILE: _HANDLES,
    errno.EAGAIN: _PROCESSES,
    errno.ENOMEM: "free some memory; the same command goes on from what was saved",
    errno.EIO: "check the disk or the network; the same command goes on from what was saved",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ENOTDIR: "move the file away that is where a folder must be, or choose another place",
    errno.EISDIR: "move the folder away that is where a file must be, or choose another place",
}


def regular(path: Path) -> Path:
    """`path`, if it is a regular file. A pipe or a device may have no end, or nothing to read for ever.

    Raises:
        OSError: it is missing, or a folder, pipe, device or socket.
        ValueError: there is a zero byte in the name.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        kind = next((kind for is_kind, kind in _KINDS.items() if is_kind(mode)), "device")
        raise OSError(errno.EINVAL, f"it is a {kind}, not a regular file", str(path))
    return path


def require_handles() -> None:
    """Ask for 4,096 open files where fewer are allowed. Raises PipelineError if the limit is below 64.

    With fewer, libraries fail in many ways: images "cannot be opened", a database is lost, a batch never arrives.
    """
    if sys.platform == "win32":
        return
    import resource  # Windows has none

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = _HANDLES_WANTED if hard == resource.RLIM_INFINITY else min(hard, _HANDLES_WANTED)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < _HANDLES_NEEDED:
        raise PipelineError(
            "this command may open too few files",
            expected=f"at least {_HANDLES_NEEDED}",
            got=f"a limit of {allowed}",
            remedy=f"start it where `ulimit -n` gives {_HANDLES_NEEDED} or more",
        )


def refusal(error: BaseException) -> PipelineError | None:
    """The PipelineError for an error by which the machine refused something; None for any other error, a bug."""
    if isinstance(error, OSError) and error.errno in _REMEDIES:
        where = f"{error.filename}: " if isinstance(error.filename, str) else ""
        return PipelineError(f"{where}{error.strerror}", remedy=_REMEDIES[error.errno])
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return PipelineError("no more threads can be started", remedy=_PROCESSES)
    return None
