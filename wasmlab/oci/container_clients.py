"""What a real container client says when it is pointed at a WASM artifact (it refuses: there is no root file system).

The article met ``invalid rootfs in image configuration``, Docker's words of 2021. Each client has words of its own
today; `demonstrate` lets those on this machine speak and falls back to recorded answers, marked so.

Every client runs with a state directory of its own, removed afterwards: nobody's images or daemons are touched.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wasmlab.errors import PrerequisiteError
from wasmlab.oci.reference import Reference
from wasmlab.process import Child

_INSTALL_TIMEOUT_S = 300.0
_DAEMON_TIMEOUT_S = 20.0
_MAX_OUTPUT = 4000
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")
_BARS = re.compile(r"\|[-+. ]*\|\s*$|^elapsed: ")


@dataclass(frozen=True)
class Answer:
    """What a client was asked and what it said.

    Parameters
    ----------
    client, version : str
        Which program.
    argv : tuple of str
        The command, without the options that only give it a private state directory.
    exit_code : int
        Its exit code.
    output : str
        Standard output and error, without terminal control and progress bars.
    recorded : bool
        True if this is not from this machine and moment.
    date : str
        Day of the run, ISO.
    """

    client: str
    version: str
    argv: tuple[str, ...]
    exit_code: int
    output: str
    recorded: bool
    date: str

    @property
    def refused(self) -> bool:
        """Whether the client failed."""
        return self.exit_code != 0

    @property
    def reason(self) -> str:
        """The line that says why."""
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        match = re.search(r'msg="(.*)"$', lines[-1]) if lines else None
        return match[1].replace('\\"', '"') if match else (lines[-1] if lines else "")

    def __str__(self) -> str:
        mark = f" (recorded {self.date})" if self.recorded else ""
        return (
            f"# {self.client} {self.version}{mark}\n$ {' '.join(self.argv)}\n{self.output.rstrip()}\n"
            f"exit code {self.exit_code}"
        )


@dataclass(frozen=True)
class _Client:
    """`shown` is the command for people, `private` the options that isolate it (inserted after the program)."""

    package: str
    needs: tuple[str, ...]
    version: tuple[str, ...]
    shown: Callable[[str, bool], list[str]]
    private: Callable[[Path], list[str]] = lambda _: []
    needs_root: bool = False
    daemon: Callable[[Path], contextlib.AbstractContextManager[None]] = lambda _: contextlib.nullcontext()


def _skopeo(ref: str, plain: bool) -> list[str]:
    return ["skopeo", "inspect", *(["--tls-verify=false"] if plain else []), f"docker://{ref}"]


def _podman(ref: str, plain: bool) -> list[str]:
    return ["podman", "pull", *(["--tls-verify=false"] if plain else []), ref]


def _ctr(ref: str, plain: bool) -> list[str]:
    return ["ctr", "images", "pull", *(["--plain-http"] if plain else []), ref]


@contextlib.contextmanager
def _containerd(state: Path) -> Iterator[None]:
    config = state / "containerd.toml"
    config.write_text(
        f'version = 2\nroot = "{state}/root"\nstate = "{state}/state"\n'
        f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "{state}/c.sock"\n'
    )
    daemon = Child(["containerd", "-c", str(config)], log=state / "log")
    try:
        daemon.wait_ready((state / "c.sock").exists, _DAEMON_TIMEOUT_S)
        yield
    finally:
        daemon.stop()


@contextlib.contextmanager
def _without_pause(state: Path) -> Iterator[None]:
    """End the process by which podman, run by an ordinary user, keeps its namespaces open for the next podman."""
    try:
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):
            pid = int((state / "libpod" / "tmp" / "pause.pid").read_text())
            # Only the one of this very run: by now the number may be somebody else's.
            if f"XDG_RUNTIME_DIR={state}\0" in Path(f"/proc/{pid}/environ").read_text():
                os.kill(pid, signal.SIGKILL)


_CLIENTS: dict[str, _Client] = {
    "skopeo": _Client("skopeo", ("skopeo",), ("skopeo", "--version"), _skopeo),
    "podman": _Client(
        "podman",
        ("podman",),
        ("podman", "--version"),
        _podman,
        lambda state: ["--root", f"{state}/r", "--runroot", f"{state}/rr", "--storage-driver", "vfs"],
        daemon=_without_pause,
    ),
    "ctr": _Client(
        "containerd",
        ("ctr", "containerd"),
        ("ctr", "--version"),
        _ctr,
        lambda state: ["--address", f"{state}/c.sock"],
        needs_root=True,
        daemon=_containerd,
    ),
}


def available() -> tuple[str, ...]:
    """Return the clients that this machine can run now, the cheapest first."""
    return tuple(
        name
        for name, client in _CLIENTS.items()
        if all(shutil.which(program) for program in client.needs)
        and (os.geteuid() == 0 or not client.needs_root)
    )


def install(name: str = "skopeo") -> bool:
    """Install a client from Debian's archive if that can be done without asking (as root, with apt-get).

    Returns
    -------
    bool
        Whether the client is there now. False is no error: recorded answers exist.
    """
    client = _CLIENTS[name]
    if name in available():
        return True
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return False
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "-y", "--no-install-recommends", client.package]):
        try:
            subprocess.run(
                ["apt-get", "-q", *command],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_INSTALL_TIMEOUT_S,
                env=environment,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
    return name in available()


def ask(
    name: str, ref: str | Reference, *, plain_http: bool | None = None, timeout_s: float = 60.0
) -> Answer:
    """Point the client `name` ("skopeo", "podman" or "ctr") at `ref` and return what it says.

    Parameters
    ----------
    name : str
        One of `available`.
    ref : str or Reference
        An artifact in a registry that runs.
    plain_http : bool, optional
        Scheme of the registry; by default http on this machine only.
    timeout_s : float
        After this many seconds the client is ended; the exit code is then 124, as of timeout(1).

    Raises
    ------
    PrerequisiteError
        If the client is not here.
    """
    ref = ref if isinstance(ref, Reference) else Reference.parse(ref)
    if name not in available():
        raise PrerequisiteError(
            f"the container client {name!r} cannot run here",
            remedy=f"apt-get install {_CLIENTS[name].package}" if name in _CLIENTS else "use skopeo",
        )
    client = _CLIENTS[name]
    shown = client.shown(str(ref), ref.is_loopback if plain_http is None else plain_http)
    with tempfile.TemporaryDirectory(prefix="wasmlab-client-") as directory:
        state = Path(directory)
        with client.daemon(state):
            code, output = _run([shown[0], *client.private(state), *shown[1:]], timeout_s, state)
    version = _run(list(client.version), timeout_s, None)[1].split()
    return Answer(
        name,
        next((word for word in version if word[:1].isdigit()), "unknown"),
        tuple(shown),
        code,
        output,
        recorded=False,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )


def _run(argv: list[str], timeout_s: float, home: Path | None) -> tuple[int, str]:
    # A home of its own: the user's registries.conf and credentials must not change what is shown.
    environment = dict(os.environ)
    if home is not None:
        environment |= {"HOME": str(home), "XDG_RUNTIME_DIR": str(home), "XDG_CONFIG_HOME": str(home)}
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        return 124, (error.stdout or b"").decode(errors="replace")
    text = _ANSI.sub("", done.stdout.decode(errors="replace"))
    text = "\n".join(line.rstrip() for line in text.splitlines() if line.strip() and not _BARS.search(line))
    return done.returncode, text[-_MAX_OUTPUT:]


def recorded() -> list[Answer]:
    """Return answers recorded on another machine, for machines without a container client.

    Raises
    ------
    PrerequisiteError
        If the recording is missing.
    """
    from wasmlab.modules.files import data_dir

    path = data_dir("recorded") / "container_client.json"
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        answers = content["answers"]
        return [Answer(**{**item, "argv": tuple(item["argv"]), "recorded": True}) for item in answers]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PrerequisiteError(
            f"the recorded answers in {path} cannot be read: {error}",
            remedy="restore the file from the repository",
        ) from error


def demonstrate(
    ref: str | Reference, *, plain_http: bool | None = None, may_install: bool = True, timeout_s: float = 60.0
) -> list[Answer]:
    """Ask every client that this machine has; if it has none (and none can be installed), return the recorded answers.

    Parameters
    ----------
    ref : str or Reference
        A WASM artifact in a registry that runs.
    plain_http : bool, optional
        As `ask`.
    may_install : bool
        Whether root may install skopeo from Debian's archive.
    timeout_s : float
        Deadline for each client, in seconds.
    """
    if not available() and may_install:
        install()
    answers = []
    for name in available():
        with contextlib.suppress(
            PrerequisiteError
        ):  # a client that cannot start here says nothing about artifacts
            answers.append(ask(name, ref, plain_http=plain_http, timeout_s=timeout_s))
    return answers or recorded()


def record(answers: list[Answer], machine: str) -> str:
    """Return `answers` as the text of ``data/recorded/container_client.json``."""
    items = []
    for answer in answers:
        item = asdict(answer)
        del item["recorded"]
        items.append(item)
    return json.dumps({"machine": machine, "answers": items}, indent=2) + "\n"
