"""Install the shim on the node that this runs on: what the DaemonSet's container does. Standard library only.

``python -m wasmlab.containerd.installer install|uninstall --host DIR`` with the node's root file system at DIR:

1. the bundle goes to ``/opt/wasmlab-shim``, replaced as a whole;
2. links to its executables go to ``/usr/local/bin``;
3. the runtimes go into containerd's configuration, between two marks, and nothing else in it is touched;
4. containerd is restarted if its configuration changed (running containers go on: they belong to their shims);
5. the node gets the label by which the RuntimeClasses find it.

Done twice it changes nothing the second time. ``uninstall`` goes the other way.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path

from wasmlab.containerd.config import handlers_table

BUNDLE = "opt/wasmlab-shim"
BIN = "usr/local/bin"
CONFIG = "etc/containerd/config.toml"
LABEL = "wasmlab.dev/shim"
EXECUTABLES = (
    "containerd-shim-wasm-v1",
    "containerd-shim-wasmtime-v1",
    "containerd-shim-wasmer-v1",
    "wasmlab-shim",
)
BEGIN = "# >>> wasmlab: made by its installer, removed by it >>>"
END = "# <<< wasmlab <<<"
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TIMEOUT_S = 60.0


def with_handlers(text: str) -> str:
    """Return containerd's configuration with our runtimes in it. Pure; what is there already stays as it is."""
    text = without_handlers(text)
    match = re.search(r"^version\s*=\s*(\d+)", text, re.MULTILINE)
    # A file without a version is read in the oldest format, which has no runtimes by name: then it has to say one.
    version = int(match[1]) if match else 2
    prefix = "" if match else f"{BEGIN}\nversion = 2\n{END}\n"
    if text and not text.endswith("\n"):
        text += "\n"
    return f"{prefix}{text}{BEGIN}\n{handlers_table(2 if version >= 3 else 1)}{END}\n"


def without_handlers(text: str) -> str:
    """Return containerd's configuration as it was before `with_handlers`. Pure."""
    return re.sub(rf"^{re.escape(BEGIN)}\n.*?^{re.escape(END)}\n", "", text, flags=re.MULTILINE | re.DOTALL)


def install(host: Path, bundle: Path) -> bool:
    """Put bundle, links and configuration in place; return whether containerd has to be restarted."""
    target = host / BUNDLE
    partial = target.with_name(f".{target.name}.new")
    shutil.rmtree(partial, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(bundle, partial, symlinks=True)
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        # Shims that run keep what they have opened; the next one finds the new files.
        target.rename(old)
    partial.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    (host / BIN).mkdir(parents=True, exist_ok=True)
    for name in EXECUTABLES:
        link = host / BIN / name
        link.unlink(missing_ok=True)
        link.symlink_to(f"/{BUNDLE}/bin/{name}")
    return _rewrite(host / CONFIG, with_handlers)


def uninstall(host: Path) -> bool:
    """Remove what `install` made; return whether containerd has to be restarted."""
    changed = _rewrite(host / CONFIG, without_handlers) if (host / CONFIG).exists() else False
    for name in EXECUTABLES:
        link = host / BIN / name
        if link.is_symlink() and os.readlink(link).startswith(f"/{BUNDLE}/"):
            link.unlink()
    shutil.rmtree(host / BUNDLE, ignore_errors=True)
    return changed


def _rewrite(path: Path, change: object) -> bool:
    before = path.read_text() if path.exists() else ""
    after = change(before)  # type: ignore[operator]
    if after == before:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.wasmlab")
    temporary.write_text(after)
    if path.exists():
        shutil.copymode(path, temporary)
    os.replace(temporary, path)
    return True


def restart_containerd(host: Path) -> None:
    """Restart the node's containerd by the node's own systemd."""
    argv = ["systemctl", "restart", "containerd"]
    # chroot by Python: the installer's image holds no programs.
    subprocess.run(argv, check=True, timeout=_TIMEOUT_S, preexec_fn=lambda: os.chroot(host), cwd="/")


def label_node(name: str, value: str | None) -> None:
    """Set or remove the node's label, with the pod's service account."""
    address = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
    request = urllib.request.Request(
        f"{address}/api/v1/nodes/{name}",
        method="PATCH",
        data=json.dumps({"metadata": {"labels": {LABEL: value}}}).encode(),
        headers={
            "Authorization": f"Bearer {(_ACCOUNT / 'token').read_text()}",
            "Content-Type": "application/merge-patch+json",
        },
    )
    context = ssl.create_default_context(cafile=str(_ACCOUNT / "ca.crt"))
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S, context=context):
        pass


def main() -> None:
    """Do it, then wait to be ended: a DaemonSet's container has to stay."""
    parser = argparse.ArgumentParser(prog="wasmlab.containerd.installer")
    parser.add_argument("action", choices=["install", "uninstall"])
    parser.add_argument("--host", type=Path, default=Path("/host"), help="the node's root file system")
    parser.add_argument("--bundle", type=Path, default=Path("/") / BUNDLE)
    parser.add_argument("--no-restart", action="store_true", help="leave containerd alone")
    parser.add_argument("--once", action="store_true", help="end when done")
    options = parser.parse_args()
    # A container's first process ignores what it does not handle.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # The label comes last and goes first: no pod is sent to a node that cannot run it.
    node = os.environ.get("NODE_NAME")
    if options.action == "uninstall" and node:
        label_node(node, None)
    changed = (
        install(options.host, options.bundle) if options.action == "install" else uninstall(options.host)
    )
    if changed and not options.no_restart:
        restart_containerd(options.host)
    if options.action == "install" and node:
        label_node(node, "true")
    what = "changed" if changed else "was right"
    print(f"{options.action}ed on {node or options.host}; containerd's configuration {what}", flush=True)
    if not options.once:
        signal.pause()


if __name__ == "__main__":
    main()
