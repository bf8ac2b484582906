"""Proof that the wheels need no compiler: install them where there is none, with an empty home, and use them.

``make trywheels`` (after ``make wheels``; about three minutes, most of it pip's) makes a virtual environment, installs
``wasmlab[all]`` from the directory of the wheels, and then, with a PATH on which there is no compiler, runs a
module on both engines, executes a notebook, starts a lab with its node, runs a Pod, and ends it. The cache must then
hold no program that was built.

    python -m tests.release.installed [DIST]
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_COMPILER = re.compile(
    r"go|gofmt|cargo|rustc|rustup|(.*-)?(cc|c\+\+|gcc|g\+\+|clang|clang\+\+|ld|tcc)(-[\d.]+)?"
)
_POD = """
apiVersion: v1
kind: Pod
metadata: {name: hello}
spec:
  restartPolicy: Never
  containers: [{name: hello, image: REGISTRY/hello:v1}]
  tolerations: [{key: kubernetes.io/arch, operator: Exists}]
"""


class Installed:
    """The wheels, installed below `scratch`."""

    def __init__(self, scratch: Path, dist: Path) -> None:
        self.scratch, self.dist = scratch, dist
        self.bin = scratch / "venv" / "bin"
        (scratch / "home").mkdir()
        self.env = {
            name: value for name, value in os.environ.items() if not name.startswith(("WASMLAB_", "XDG_"))
        }
        self.env |= {"HOME": str(scratch / "home"), "PATH": f"{self.bin}:{_programs(scratch / 'programs')}"}

    def install(self) -> None:
        """Make the environment: dependencies as the lock pins them, ours from the directory alone."""
        subprocess.run([sys.executable, "-m", "venv", self.bin.parent], check=True, timeout=120)
        pip = [self.bin / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        network = {**os.environ, "PATH": self.env["PATH"]}
        pins = self.scratch / "pins"
        pins.write_text(_pins((ROOT / "requirements.lock").read_text()))
        subprocess.run(
            [*pip, "--only-binary=:all:", "--find-links", self.dist, "-c", pins, "wasmlab[all]"],
            check=True, timeout=1200, env=network,
        )  # fmt: skip

    def run(self, *words: str, timeout_s: float = 120) -> str:
        """Run a command that is to succeed, and return what it printed."""
        done = subprocess.run(
            words, env=self.env, cwd=self.scratch, capture_output=True, text=True, timeout=timeout_s
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def built(self) -> list[Path]:
        """Programs that were built after all."""
        cache = self.scratch / "home" / ".cache" / "wasmlab"
        return [
            path for kind in ("kube", "native", "go-toolchain") for path in (cache / kind).glob("**/wasm*")
        ]


def _programs(folder: Path) -> Path:
    """Lay links to the machine's programs into `folder`, but to no compiler, and return it."""
    folder.mkdir()
    for program in Path("/usr/bin").iterdir():
        if not _COMPILER.fullmatch(program.name):
            (folder / program.name).symlink_to(program)
    return folder


def _pins(lock: str) -> str:
    """The lock as constraints: without hashes, because the wheels made here are in no lock."""
    lines = (line.partition(" \\")[0] for line in lock.splitlines() if line[:1].isalpha())
    return "\n".join(lines) + "\n"


def main() -> None:
    """Install and use."""
    dist = Path(sys.argv[1] if len(sys.argv) > 1 else "dist").resolve()
    scratch = Path(tempfile.mkdtemp(prefix="wasmlab-installed-"))
    try:
        lab = Installed(scratch, dist)
        for compiler in ("go", "cargo", "cc", "gcc"):
            if found := shutil.which(compiler, path=lab.env["PATH"]):
                raise SystemExit(f"{found} is on the PATH that should have no compiler")
        lab.install()
        print("installed", flush=True)
        _use(lab)
        if built := lab.built():
            raise SystemExit(f"built after all: {built}")
        print("no compiler was needed")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _use(lab: Installed) -> None:
    material = "from wasmlab.modules.files import data_dir; print(data_dir('wasm', 'hello.wasm'))"
    hello = lab.run("python", "-c", material).strip()
    assert str(lab.scratch) in hello, hello
    for engine in ("wasmtime", "wasmer", "wasmer-native"):
        assert "hello from stdout!" in lab.run("wasmlab", "run", "--engine", engine, hello)
        print(f"{engine} runs", flush=True)
    lab.run("wasmlab", "lab", "--only", "00", timeout_s=180)
    assert (lab.scratch / "reports" / "00_start_here.html").is_file()
    print("a notebook runs", flush=True)
    state = str(lab.scratch / "lab")
    registry = json.loads(lab.run("wasmlab", "up", "--dir", state, "--json", timeout_s=180))["registry"]
    try:
        lab.run("wasmlab", "oci", "push", hello, f"{registry}/hello:v1")
        (lab.scratch / "pod.yaml").write_text(_POD.replace("REGISTRY", registry))
        kubectl = ("wasmlab", "kubectl", "--dir", state, "--")
        lab.run(*kubectl, "apply", "-f", "pod.yaml")
        lab.run(*kubectl, "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/hello", "--timeout=60s")
        assert "hello from stdout!" in lab.run(*kubectl, "logs", "hello")
        print("a Pod runs", flush=True)
    finally:
        lab.run("wasmlab", "down", "--dir", state)


if __name__ == "__main__":
    main()
