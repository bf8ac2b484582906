"""The bundle runs where there is no Python, no package, not even a shell."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from wasmlab.containerd import build, bundle, missing
from wasmlab.errors import PrerequisiteError
from wasmlab.oci import image

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a root of its own needs root (chroot, mounts)")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A root file system that holds a C library and the bundle, and nothing else."""
    root = tmp_path_factory.mktemp("bare") / "root"
    for name in ("proc", "dev", "run", "tmp", "var", "opt", "etc"):
        (root / name).mkdir(parents=True)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    bundle.make(root / "opt/wasmlab-shim")
    # The C library of this machine, at the paths where its loader looks.
    said = subprocess.run(["ldd", sys.executable], capture_output=True, text=True, check=True).stdout
    libraries = set(re.findall(r"(/\S+/(?:ld-linux|libc|libm)\S*)", said))
    directory = Path(next(path for path in libraries if "libc.so" in path)).parent
    for name in ("libpthread.so.0", "libdl.so.2", "librt.so.1", "libutil.so.1", "libm.so.6"):
        libraries.add(str(directory / name))
    for path in libraries:
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(os.path.realpath(path), target)
    yield root
    shutil.rmtree(root, ignore_errors=True)  # it is large


def in_root(root: Path, code: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    """Run Python of this machine as far as the new root; what it starts there is all the root's own."""
    prepare = f"""
        import os, subprocess, sys
        os.chroot({str(root)!r})
        os.chdir("/")
    """
    script = textwrap.dedent(prepare) + textwrap.dedent(code)
    mounts = f"mount --bind {root} {root} && mount -t proc proc {root}/proc && mount --rbind /dev {root}/dev"
    inner = f'{mounts} && exec {sys.executable} -c "$0"'
    return subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", inner, script],
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


def test_it_says_its_version(bare: Path) -> None:
    for program in ("containerd-shim-wasm-v1", "containerd-shim-wasmer-v1"):
        done = in_root(bare, f"os.execv('/opt/wasmlab-shim/bin/{program}', ['{program}', '-v'])")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"{program}:")
        assert "wasmtime:" in done.stdout and "wasmer:" in done.stdout


def test_nothing_in_it_leads_back_here(bare: Path) -> None:
    root = bare / "opt/wasmlab-shim"
    links = [path for path in root.rglob("*") if path.is_symlink() and os.path.isabs(os.readlink(path))]
    assert links == []
    assert not list(root.rglob("__editable__*"))


@pytest.mark.skipif(
    bool(missing()) or build.find() is None,
    reason=f"{missing() or 'containerd 2 has not been built (python -m wasmlab.containerd.build)'}",
)
@pytest.mark.parametrize("engine", ["wasmtime", "wasmer"])
def test_a_module_runs_under_containerd_in_a_bare_root(bare: Path, repository: Path, engine: str) -> None:
    programs = build.find()
    assert programs is not None
    for name in ("containerd", "ctr"):
        shutil.copy2(programs / name, bare / "opt" / name)
    module = (repository / "data/wasm/hello_article.wasm").read_bytes()
    (bare / "opt/hello.tar").write_bytes(image.archive(image.module_image(module), "test/hello:v1"))
    (bare / "etc/containerd.toml").write_text(
        'version = 3\nroot = "/var/containerd"\nstate = "/run/containerd-test"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime", '
        '"io.containerd.cri.v1.images", "io.containerd.nri.v1.nri"]\n'
        '[grpc]\n  address = "/run/c.sock"\n'
    )
    done = in_root(
        bare,
        f"""
        import time
        os.environ["PATH"] = "/opt/wasmlab-shim/bin"
        log = open("/tmp/containerd.log", "w")
        subprocess.Popen(["/opt/containerd", "--config", "/etc/containerd.toml"], stdout=log, stderr=log)
        ctr = ["/opt/ctr", "--address", "/run/c.sock"]
        for _ in range(200):
            if subprocess.run([*ctr, "version"], capture_output=True).returncode == 0:
                break
            time.sleep(0.1)
        subprocess.run([*ctr, "images", "import", "/opt/hello.tar"], stdout=subprocess.DEVNULL, check=True)
        ran = [*ctr, "run", "--rm", "--runtime", "io.containerd.{engine}.v1", "test/hello:v1", "one"]
        done = subprocess.run(ran, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        print(done.stdout, end="")
        print(done.stderr, open("/tmp/containerd.log").read()[-2000:], file=sys.stderr)
        """,
    )
    assert done.stdout == "Hello from WebAssembly!\n", done.stderr


def test_a_directory_in_use_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(PrerequisiteError, match="not empty"):
        bundle.make(tmp_path)
    assert (tmp_path / "file").read_text() == "precious"
