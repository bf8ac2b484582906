"""What a Binder session is, as far as it can be had without Docker: another user, another home, a limit of memory.

A `Box` is a directory. What runs in it runs as an ordinary user (no capabilities, no way to get any) in a mount
namespace of its own: ``/home/jovyan`` is a clone of the repository, ``/srv/conda`` the environment, ``/tmp`` is
private, ``/dev/shm`` has Docker's 64 MB, and neither the checkout nor root's home, hence no cache, can be seen. It
belongs to a memory cgroup, which also tells what is still running at the end.

What it does not prove: conda's own resolution (the environment is a virtual environment with the same lock), and the
Debian packages of ``apt.txt`` (they are root's step of the image, taken from this machine).

References
----------
repo2docker, ``buildpacks/base.py``: the template of the Dockerfile, with its variables.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

from wasmlab.sandbox import cgroups

ROOT = Path(__file__).resolve().parents[2]
USER_ID = 1000
HOME = "/home/jovyan"
CONDA = "/srv/conda"
BIN = f"{CONDA}/envs/notebook/bin"
# How this machine reaches its package registries is not part of what is tried.
_NETWORK = ("PIP_", "SSL_CERT_", "GOPROXY", "GOSUMDB", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy",
            "https_proxy", "no_proxy", "REQUESTS_CA_BUNDLE")  # fmt: skip

# Runs as root in the new mount namespace. $1: the box, $2: what to hide, $3: the interpreter's prefix, $4: the cgroup.
_SETUP = """
set -e
for group in $4; do echo $$ > "$group"; done
hidden="$2"; prefix="$3"
mkdir -p "$1/prefix"; mount --bind "$prefix" "$1/prefix"
mount -t tmpfs -o size=1m,mode=755 none /home; mkdir /home/jovyan; mount --bind "$1/home" /home/jovyan
mount -t tmpfs -o size=1m,mode=755 none /srv; mkdir /srv/conda; mount --bind "$1/conda" /srv/conda
for place in $hidden; do
    mount -t tmpfs -o size=1m,mode=755 none "$place"
    case "$prefix" in "$place"/*) mkdir -p "$prefix"; mount --bind "$1/prefix" "$prefix";; esac
done
mount -t tmpfs -o size=64m,mode=1777 none /dev/shm
mount -t tmpfs -o size=64m,mode=1777 none /var/tmp
mount --bind "$1/tmp" /tmp
shift 4
cd /home/jovyan
exec setpriv --reuid 1000 --regid 1000 --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all "$@"
"""


class Box:
    """One such place.

    Parameters
    ----------
    root : Path
        Its directory; what is there already is used again.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        if os.geteuid() != 0:
            raise SystemExit("only root can lay out the place of another user and limit its memory")
        name = f"/wasmlab-binder-{secrets.token_hex(4)}"
        self.group: cgroups.V1 | cgroups.V2 = (
            cgroups.V2(f"{cgroups.ROOT}{name}")
            if cgroups.is_v2()
            else cgroups.V1(cgroups.ROOT, name, ("memory",))
        )
        for name in ("home", "conda", "tmp"):
            (root / name).mkdir(parents=True, exist_ok=True)
            os.chown(root / name, USER_ID, USER_ID)
        root.chmod(0o755)
        (root / "tmp").chmod(0o1777)

    def clone(self) -> None:
        """Lay the committed repository into the home, as Binder does."""
        home = self.root / "home"
        if not (home / ".git").exists():
            # Through a directory that is not the home, because git does not clone into one that holds things.
            work = self.root / "clone"
            subprocess.run(
                ["git", "clone", "-q", "--no-local", "--depth=1", f"file://{ROOT}", work], check=True
            )
            shutil.copytree(work, home, symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(work)
        else:
            trust = ["-c", f"safe.directory={home}", "-c", f"safe.directory={home}/.git"]
            at = ["git", *trust, "-C", str(home)]
            subprocess.run([*at, "fetch", "-q", "--depth=1", f"file://{ROOT}", "HEAD"], check=True)
            subprocess.run([*at, "reset", "-q", "--hard", "FETCH_HEAD"], check=True)
        subprocess.run(["chown", "-R", "-h", f"{USER_ID}:{USER_ID}", str(home)], check=True)

    def environment(self) -> dict[str, str]:
        """The variables that repo2docker's image has."""
        passed = {name: value for name, value in os.environ.items() if name.startswith(_NETWORK)}
        return {
            **passed,
            "PATH": f"{HOME}/.local/bin:{BIN}:/usr/local/bin:/usr/bin:/bin",
            "HOME": HOME,
            "USER": "jovyan",
            "NB_USER": "jovyan",
            "NB_UID": str(USER_ID),
            "REPO_DIR": HOME,
            "SHELL": "/bin/bash",
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
        }

    def argv(self, command: list[str]) -> list[str]:
        """What starts `command` in the box."""
        hidden = f"{Path.home()} {ROOT}"
        groups = " ".join(self.group.join_paths())
        return [
            *("unshare", "--mount", "--propagation", "private", "sh", "-c", _SETUP, "box"),
            *(str(self.root), hidden, sys.base_prefix, groups, *command),
        ]

    def start(self, command: list[str], log: Path) -> subprocess.Popen[bytes]:
        """Start `command`; its output goes to `log`."""
        with open(log, "ab") as stream:
            return subprocess.Popen(
                self.argv(command), env=self.environment(), stdin=subprocess.DEVNULL, stdout=stream,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def run(self, command: list[str], log: Path, timeout_s: float) -> None:
        """Run `command` to its end.

        Raises
        ------
        SystemExit
            If it fails, with the last lines it wrote.
        """
        process = self.start(command, log)
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            code = "no end"
        finally:
            if process.poll() is None:
                process.terminate()
        if code:
            last = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
            raise SystemExit(f"{' '.join(command)} in the box: {code} (the whole log is {log})\n{last}")

    def limit(self, memory_bytes: int) -> None:
        """Make the group, with a limit of memory (-1: none)."""
        self.group.create({"memory": {"limit": memory_bytes}})

    def kills(self) -> int:
        """How many processes the kernel has ended for want of memory."""
        return self.group.oom_kills()

    def running(self) -> list[int]:
        """Ids of the processes that are still there."""
        return self.group.procs()

    def close(self) -> None:
        """End what is left and remove the group; the directory stays."""
        self.group.remove()
