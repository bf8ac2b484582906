"""Keep a talkative module from filling the disk: container logs are rotated as the kubelet rotates them.

A log that has grown past its size is renamed (``c.0.log`` -> ``c.0.log.20261124-090000``) and the sandbox goes on in
a new file; of the renamed ones only the youngest are kept. ``kubectl logs`` shows the current file, as it does on any
node.

References
----------
KubeletConfiguration ``containerLogMaxSize`` (10Mi) and ``containerLogMaxFiles`` (5);
``k8s.io/kubernetes/pkg/kubelet/logs/container_log_manager.go``.
"""

from __future__ import annotations

import asyncio
import calendar
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from wasmlab.errors import WasmlabError
from wasmlab.node import log

MAX_BYTES = 10 << 20
MAX_FILES = 5
_PERIOD_S = 10.0
_FORMAT = "%Y%m%d-%H%M%S"


def rotated(path: Path) -> list[Path]:
    """The renamed logs of a log, oldest first."""
    return sorted(path.parent.glob(path.name + ".*"))


def _stamp(unix_s: float) -> str:
    return time.strftime(_FORMAT, time.gmtime(unix_s))


def _after(path: Path) -> Path:
    """The name that a log rotated one second after `path` has."""
    head, _, stamp = path.name.rpartition(".")
    try:
        moment = calendar.timegm(time.strptime(stamp, _FORMAT))
    except ValueError:  # somebody else's file
        return path.with_name(f"{path.name}x")
    return path.with_name(f"{head}.{_stamp(moment + 1)}")


async def rotate(path: Path, reopen: Callable[[], Awaitable[None]], *, max_files: int = MAX_FILES) -> None:
    """Move a log away and have its writer open it anew.

    Parameters
    ----------
    path : Path
        The log.
    reopen : callable
        Makes the writer open `path` again. Until it has, lines go to the renamed file, so that none is lost.
    max_files : int
        How many files may be left, the current one included.
    """
    target = path.with_name(f"{path.name}.{_stamp(time.time())}")
    before = rotated(path)
    if before and target.name == before[-1].name:
        return  # it was rotated within this very second; next time
    if before and target.name < before[-1].name:
        # The wall clock was set back. The name must still sort last, or the youngest file would go as the oldest.
        target = _after(before[-1])
    path.rename(target)
    try:
        await reopen()
    except (WasmlabError, KeyError):
        if not path.exists():
            target.rename(path)
        raise
    for old in rotated(path)[: -(max_files - 1)]:
        old.unlink(missing_ok=True)


async def keep_rotating(
    logs: Callable[[], Iterable[tuple[Path, Callable[[], Awaitable[None]]]]],
    *,
    max_bytes: int = MAX_BYTES,
    period_s: float = _PERIOD_S,
) -> None:
    """Rotate what has grown too large, until cancelled.

    Parameters
    ----------
    logs : callable
        Gives each running container's log and how to have it opened anew.
    """
    while True:
        await asyncio.sleep(period_s)
        for path, reopen in list(logs()):
            try:
                if path.stat().st_size > max_bytes:
                    await rotate(path, reopen)
            except FileNotFoundError:
                continue  # the pod has gone
            except (WasmlabError, KeyError, OSError) as error:
                log.warning("cannot rotate a log", path=path, error=error)
