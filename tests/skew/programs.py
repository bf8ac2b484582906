"""Build the stock components of older Kubernetes releases, each release once, into the cache.

``python -m tests.skew.programs VERSION...`` builds; without arguments the release before the lab's. Each takes about as
long as the lab's own control plane (6 minutes of two cores, 4 GB of Go's caches), so nothing does it unasked.

The module proxy serves k8s.io/kubernetes without what it calls staging: those modules are released apart, as
v0.MINOR.PATCH of the same minor. go.mod is made from the release's own, which therefore decides the version of every
dependency, etcd included; that file and go.sum are kept beside the binary.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from wasmlab.cluster import gotoolchain
from wasmlab.paths import cache_dir

SOURCE = Path(__file__).with_name("program") / "main.go"
NAME = "skew-kube"
# The release that the lab embeds (it is built anyhow); the one before it; an old one, whose modules resolve, and whose
# test is skipped as long as nobody has built it.
EMBEDDED, PREVIOUS, OLDEST = "v1.37.2", "v1.36.3", "v1.29.6"
_BUILD_TIMEOUT_S = 3600.0


def find(version: str) -> Path | None:
    """Return the program of a release if it has been built."""
    path = _directory(version) / NAME
    return path if path.exists() else None


def ensure(version: str) -> Path:
    """Return the program of a release, building it if need be."""
    path = _directory(version) / NAME
    if path.exists():
        return path
    go = gotoolchain.find(progress=True)
    env = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
    directory = path.parent
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "main.go").write_text(SOURCE.read_text())
    download = [str(go.path), "mod", "download", "-json", f"k8s.io/kubernetes@{version}"]
    found = json.loads(
        subprocess.run(download, env=env, check=True, capture_output=True, cwd="/", text=True).stdout
    )
    (directory / "go.mod").write_text(go_mod(version, Path(found["GoMod"]).read_text()))
    stamp = "k8s.io/component-base/version"
    major, minor, _ = version.removeprefix("v").split(".")
    flags = f"-s -w -X {stamp}.gitVersion={version} -X {stamp}.gitMajor={major} -X {stamp}.gitMinor={minor}"
    partial = path.with_name(f".{NAME}.{os.getpid()}")
    build = [
        str(go.path),
        "build",
        "-mod=mod",
        "-p",
        "1",
        "-trimpath",
        "-ldflags",
        flags,
        "-o",
        str(partial),
        ".",
    ]
    subprocess.run(build, env=env, check=True, cwd=directory, timeout=_BUILD_TIMEOUT_S)
    partial.rename(path)
    return path


def go_mod(version: str, upstream: str) -> str:
    """Return the go.mod of our program from the release's own: staging modules by version, everything else as there."""
    staged = "v0." + version.split(".", 1)[1]
    header = "\n".join(re.findall(r"(?m)^(?:go|godebug|toolchain) .*$", upstream))
    blocks = re.findall(r"(?ms)^(?:require|godebug) \(\n.*?^\)$", upstream)
    names = sorted(set(re.findall(r"(?m)^\s*(?:replace )?(k8s\.io/\S+) => \./staging/", upstream)))
    replaced = "\n".join(f"\t{name} => {name} {staged}" for name in names)
    own = f"require k8s.io/kubernetes {version}"
    return "\n\n".join(["module wasmlab.dev/skew", header, own, *blocks, f"replace (\n{replaced}\n)"]) + "\n"


def _directory(version: str) -> Path:
    return cache_dir("skew", version)


if __name__ == "__main__":
    for wanted in sys.argv[1:] or (PREVIOUS,):
        print(ensure(wanted))
