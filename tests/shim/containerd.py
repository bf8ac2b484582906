"""A private containerd with our shim, for the tests: its own root, state, sockets and shim directory."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from wasmlab.containerd import native
from wasmlab.errors import WasmlabError
from wasmlab.oci.image import archive, scratch_image
from wasmlab.paths import cache_dir
from wasmlab.process import Child
from wasmlab.shim import control, install

RUNTIMES = {"wasmtime": "io.containerd.wasmtime.v1", "wasmer": "io.containerd.wasmer.v1"}
DISABLED = (
    "io.containerd.grpc.v1.cri",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
)


def programs() -> dict[str, Path | None]:
    """Return the containerds that are here: Debian's (None: as on PATH), and 2.x if it has been built already."""
    built = [
        one.parent for one in cache_dir("containerd").glob("*/containerd") if (one.parent / "ctr").exists()
    ]
    newest = sorted(built, key=lambda path: path.stat().st_mtime)[-1:]
    return {"1.x": None, **({"2.x": newest[0]} if newest else {})}


def launcher() -> Path | None:
    """Return the compiled launcher if a compiler is here and works."""
    try:
        return native.program(install.LAUNCHER_SOURCE)
    except WasmlabError:
        return None


def missing() -> str:
    """Why these tests cannot run here ("" if they can)."""
    if os.geteuid() != 0:
        return "needs root (the shim mounts file systems and makes cgroups)"
    if not shutil.which("containerd") or not shutil.which("ctr"):
        return "needs containerd and ctr: apt-get install containerd runc"
    return ""


def eventually(check: Callable[[], object], timeout_s: float = 30.0) -> object:
    """Return the first true value of `check`; fail the test after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not (value := check()):
        assert time.monotonic() < deadline, f"did not happen within {timeout_s} s"
        time.sleep(0.02)
    return value


class Containerd:
    """containerd as a child, and ctr to talk to it."""

    def __init__(self, programs: Path | None = None) -> None:
        # Short: the paths of unix sockets are.
        self.dir = Path(tempfile.mkdtemp(prefix="wlshim-", dir="/tmp"))
        self.shim_dir = self.dir / "z"
        self.bin = self.dir / "bin"
        self.programs = programs
        install.install(self.bin, launcher=launcher())
        disabled = ", ".join(f'"{name}"' for name in DISABLED)
        (self.dir / "config.toml").write_text(
            f'version = 2\nroot = "{self.dir}/root"\nstate = "{self.dir}/state"\n'
            f'disabled_plugins = [{disabled}]\n[grpc]\naddress = "{self.dir}/c.sock"\n'
        )
        self.child: Child | None = None
        self.start()

    def start(self) -> None:
        path = f"{self.bin}:{os.environ['PATH']}"
        if self.programs:
            path = f"{self.programs}:{path}"
        self.child = Child(
            [shutil.which("containerd", path=path), "--config", str(self.dir / "config.toml")],
            log=self.dir / "containerd.log",
            env={**os.environ, "PATH": path, "WASMLAB_SHIM_DIR": str(self.shim_dir)},
        )
        self.child.wait_ready(lambda: self.ctr("version", check=False).returncode == 0, timeout_s=30)

    def stop(self, grace_s: float = 10.0) -> None:
        if self.child is not None:
            self.child.stop(grace_s)
            self.child = None

    def log(self) -> str:
        return (self.dir / "containerd.log").read_text()

    def shim_log(self) -> str:
        return (self.shim_dir / "shim.log").read_text()

    def argv(self, *args: str) -> list[str]:
        path = os.environ["PATH"] if self.programs is None else f"{self.programs}:{os.environ['PATH']}"
        return [shutil.which("ctr", path=path) or "ctr", "--address", f"{self.dir}/c.sock", *args]

    def ctr(
        self, *args: str, check: bool = True, stdin: str | None = None, timeout_s: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.argv(*args),
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        # What ctr 2.x says about this machine is not what is tested.
        done.stderr = re.sub(
            r'^time="[^"]*" level=warning msg="DEPRECATION:.*\n', "", done.stderr, flags=re.M
        )
        assert not check or done.returncode == 0, f"ctr {args}: {done.returncode}: {done.stderr}"
        return done

    def image(self, name: str, files: Mapping[str, bytes], **options: object) -> str:
        tar = self.dir / "image.tar"
        tar.write_bytes(archive(scratch_image(files, **options), name))  # type: ignore[arg-type]
        self.ctr("images", "import", str(tar))
        tar.unlink()
        return name

    def popen(self, *args: str, **options: object) -> subprocess.Popen[str]:
        return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
            self.argv(*args),
            **{
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "text": True,
                **options,
            },
        )

    def tasks(self) -> dict[str, tuple[int, str]]:
        """Return container -> (pid, status)."""
        lines = self.ctr("tasks", "ls").stdout.splitlines()[1:]
        return {words[0]: (int(words[1]), words[2]) for words in (line.split() for line in lines)}

    def remove(self, container: str) -> None:
        """Kill and delete, whatever state it is in."""
        self.ctr("tasks", "kill", "-s", "SIGKILL", container, check=False)
        self.ctr("tasks", "delete", "--force", container, check=False)
        self.ctr("containers", "delete", container, check=False)

    def shims(self) -> list[int]:
        """Return the processes of this zygote's shims: those that have a pod listen on a socket."""
        return [pid for pid in self.marked() if _comm(pid) == "wasm-shim"]

    def marked(self) -> list[int]:
        """Return every process of this installation's shim machinery: their environment names its directory."""
        wanted = f"WASMLAB_SHIM_DIR={self.shim_dir}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if wanted in (entry / "environ").read_bytes().split(b"\0"):
                        pid = int(entry.name)
                        if _comm(pid).startswith("wasm-"):
                            found.append(pid)
        return found

    def leftovers(self) -> list[str]:
        """Return what runs of containers have left (the zygote and the shim that waits are no leftovers)."""
        found = [f"socket {one}" for one in (self.shim_dir / "s").glob("*")]
        found += [f"bundle {one}" for one in (self.dir / "state").glob("io.containerd.runtime.v2.task/*/*")]
        with open("/proc/self/mountinfo") as stream:
            found += [f"mount {line.split()[4]}" for line in stream if f" {self.dir}/" in line]
        for root in ("memory", "pids", "cpu", "cpuacct", "freezer", ""):
            found += [f"cgroup {one}" for one in Path("/sys/fs/cgroup", root, "default").glob("test-*")]
        workers = [f"worker {pid}" for pid in self.marked() if _comm(pid) not in ("wasm-zygote", "wasm-shim")]
        # The shim that waits has one warm worker.
        found += workers[1:]
        return found

    def close(self) -> None:
        with contextlib.suppress(AssertionError, OSError):
            for name in self.ctr("containers", "ls", "-q", check=False).stdout.split():
                self.remove(name)
        self.stop()
        control.stop(self.shim_dir)
        for pid in self.marked():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.dir, ignore_errors=True)


def _comm(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""
