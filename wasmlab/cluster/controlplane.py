"""The control plane as a child process: start, readiness, failure told in full, stop."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from wasmlab.cluster import binary, processes
from wasmlab.cluster.statedir import StateDir
from wasmlab.errors import ClusterError, ProcessError
from wasmlab.memory import limit_bytes
from wasmlab.process import Child, tail

# Exit codes of the Go program, see kube/main.go.
_IN_USE = 3
_UNUSABLE = 4
# It stops its four parts one after the other, each within 3 s; see kube/up.go.
STOP_GRACE_S = 15.0
# How much its heap may grow between two collections, in percent. At 50 a burst of pods spends a quarter of the control
# plane's CPU time in the collector; 100 costs 28 MB more at idle (349 MB), 150 already 68 MB.
_GOGC = "100"
# Where there is little memory (Binder: 2 GB) the collector works harder above this part of it, before the kernel ends
# the whole session. At idle it needs 350 MB, so the limit is felt under load alone.
_LITTLE_BYTES = 4 * 1024**3
_SHARE = 5
_LEAST_BYTES = 256 * 1024**2


class ControlPlane:
    """One run of ``wasmlab-kube up``.

    Parameters
    ----------
    state : StateDir
        Its directory.
    detach : bool
        Let it outlive this process. Else it ends when this process ends, however that happens: it holds one end of a
        pipe of which this process holds the other.
    ephemeral : bool
        The directory goes when this process has ended.
    options : sequence of str
        More command line flags of ``wasmlab-kube up``.
    """

    def __init__(
        self,
        state: StateDir,
        *,
        detach: bool = False,
        ephemeral: bool = False,
        options: tuple[str, ...] = (),
    ) -> None:
        self.state = state
        self.detach = detach
        self.ephemeral = ephemeral
        self.options = options
        self._child: Child | None = None
        self._pipe: int | None = None

    def start(self, timeout_s: float) -> dict[str, Any]:
        """Start and wait until it is ready.

        Returns
        -------
        dict
            The content of state.json.

        Raises
        ------
        ClusterError
            If another process runs on the directory, or its content cannot be used.
        ProcessError
            If it fails to start, with its exit code and last log lines.
        """
        running = self.state.control_plane()
        if running is not None:
            raise ClusterError(
                f"a control plane runs in {self.state.root} already (process {running.pid})",
                remedy=f"`wasmlab down --dir {self.state.root}` ends it; or choose another directory",
                pid=running.pid,
            )
        program = binary.ensure()
        self.state.prepare()
        argv = [
            str(program),
            "up",
            "--dir",
            str(self.state.root),
            "--timeout",
            f"{timeout_s:.3f}s",
            *self.options,
        ]
        pass_fds: tuple[int, ...] = ()
        if not self.detach:
            theirs, self._pipe = os.pipe()
            argv += ["--parent-fd", str(theirs), *(("--ephemeral",) if self.ephemeral else ())]
            pass_fds = (theirs,)
        try:
            # No PDEATHSIG: it follows the starting *thread*, and notebooks and servers start things from threads.
            self._child = child = Child(
                argv, log=self.state.log, die_with_parent=False, pass_fds=pass_fds,
                env={"GOGC": _GOGC, **_thrift(), **os.environ, "OTEL_TRACES_EXPORTER": "none"},
            )  # fmt: skip
        finally:
            for fd in pass_fds:
                os.close(fd)
        try:
            # The program has a deadline of its own and says what was missing; ours is only a net below it.
            child.wait_ready(lambda: self._ready(child.pid), timeout_s + 15, what="the control plane")
        except ProcessError as error:
            self._close_pipe()
            raise self._explain(error) from None
        except BaseException:
            self.stop()
            raise
        return self.state.state()

    def _ready(self, pid: int) -> bool:
        state = self.state.state()
        return state.get("pid") == pid and state.get("ready") is True

    def _explain(self, error: ProcessError) -> Exception:
        """Find its last words ("error: ...", then "try: ..."), or why the Go runtime ended it."""
        text = tail(self.state.log, 400)
        if said := re.search(r"(?ms)^error: (.*)\Z", text):
            message, _, remedy = (part.strip() for part in said[1].partition("\ntry: "))
            if error.returncode in (_IN_USE, _UNUSABLE):
                return ClusterError(message, remedy=remedy or None, returncode=error.returncode)
            error.message += f": {message.splitlines()[0]}"
            error.remedy = remedy or "give it more time if the machine is busy; its whole log is " + str(
                self.state.log
            )
        elif crash := re.search(r"(?m)^(panic|fatal error): .*$", text):
            error.message += f": {crash[0]}"  # far above the last lines, which are of a stack trace
        return error

    @property
    def started(self) -> bool:
        """Whether this object started it."""
        return self._child is not None

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        process = self.state.control_plane()
        return None if process is None else process.pid

    def stop(self) -> None:
        """End it and wait for the end; nothing happens if it does not run."""
        if self._child is not None:
            self._child.stop(STOP_GRACE_S)
            self._child = None
        elif (process := self.state.control_plane()) is not None:
            processes.end([process], STOP_GRACE_S)
        self._close_pipe()

    def kill(self) -> None:
        """SIGKILL: what a crash looks like."""
        if self._child is not None:
            self._child.kill()
            self._child = None
        elif (process := self.state.control_plane()) is not None:
            processes.end([process], 0.0)
        self._close_pipe()

    def _close_pipe(self) -> None:
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None


def _thrift() -> dict[str, str]:
    """GOMEMLIMIT where memory is limited to little; it is soft, and one that the user has set goes before it."""
    limit = limit_bytes()
    if limit is None or limit >= _LITTLE_BYTES:
        return {}
    return {"GOMEMLIMIT": str(max(_LEAST_BYTES, limit // _SHARE))}


def resources(pid: int) -> dict[str, float]:
    """Return what a process uses, from /proc.

    Returns
    -------
    dict
        ``rss_bytes``, ``private_bytes``, ``cpu_s``, ``threads``, ``open_files``.
    """
    proc = Path("/proc") / str(pid)
    fields = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines() if ":" in line)
    stat = (proc / "stat").read_text().rpartition(")")[2].split()
    rollup = (proc / "smaps_rollup").read_text().splitlines()
    return {
        "rss_bytes": int(fields["VmRSS"].split()[0]) * 1024,
        "private_bytes": sum(int(line.split()[1]) for line in rollup if line.startswith("Private_")) * 1024,
        "cpu_s": (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK"),
        "threads": int(fields["Threads"]),
        "open_files": len(list((proc / "fd").iterdir())),
    }
