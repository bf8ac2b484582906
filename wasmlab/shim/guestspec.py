"""From a container's OCI configuration to what its worker is told: what to run, and what to put around it."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from wasmlab import engines
from wasmlab.engines.spec import Preopen, RunSpec
from wasmlab.modules.sockets import Wants, wants_of
from wasmlab.shim.bundle import ENGINE_ANNOTATION, Bundle, BundleError, Process
from wasmlab.shim.worker import enters_root

if TYPE_CHECKING:
    from wasmlab.shim.container import Container

# What a worker needs besides the guest's memory: inside the cgroup's limit, so taken off the guest's.
_WORKER_BYTES = 8 << 20


def run_spec(
    container: Container, process: Process, path: str, argv: tuple[str, ...], wasm: bytes
) -> RunSpec:
    """Return what to run: the module `wasm`, found at `path`, with the environment of `process`.

    Raises
    ------
    BundleError
        If the engine cannot give the module a directory that the container mounts.
    """
    bundle = container.bundle
    limit = bundle.memory_limit_bytes
    return RunSpec(
        module=path,
        digest="",
        argv=argv,
        env=process.env,
        preopens=_preopens(bundle, container.engine),
        memory_bytes=None if limit is None else max(limit - _WORKER_BYTES, limit // 2),
        listen=_ports(bundle, container.engine, wasm),
    )


def surroundings(container: Container, process: Process) -> dict[str, Any]:
    """Return what `isolation.enter` puts around the process: cgroup, network, root file system, mounts, user."""
    bundle = container.bundle
    return {
        "cgroup": container.cgroup.join_paths(),
        "network": bundle.network,
        "rootfs": "" if bundle.is_sandbox else bundle.rootfs,
        "mounts": list(bundle.mounts),
        "read_only": bundle.read_only,
        "oom_score_adj": process.oom_score_adj,
        "user": {
            "uid": process.uid,
            "gid": process.gid,
            "groups": list(process.groups),
            "capabilities": process.capabilities,
        },
    }


def _ports(bundle: Bundle, engine: str, wasm: bytes) -> tuple[int, ...]:
    """Every port, in a network namespace that is the pod's own: what a container may listen on is not in its bundle."""
    if bundle.network is None or not engines.get(engine).capabilities.listens:
        return ()
    return (0,) if wants_of(wasm) is Wants.WASIX else ()


def _preopens(bundle: Bundle, engine: str) -> tuple[Preopen, ...]:
    if enters_root(engines.get(engine)):
        # The worker's root is the container's root by then, mounts included.
        return (Preopen("/", "/", bundle.read_only),)
    return _copied(bundle)


def _copied(bundle: Bundle) -> tuple[Preopen, ...]:
    """For an engine that copies directories in: those of the container, without the kernel's."""
    for one in bundle.mounts:
        options = set(one.get("options") or ())
        writable = bool({"bind", "rbind"} & options) and "ro" not in options
        if (
            writable
            and os.path.isdir(one.get("source", ""))
            and one["destination"] not in ("/dev/shm", "/run")
        ):
            raise BundleError(
                f"wasmer cannot give the module {one['destination']} for writing; mount it read-only, or set the "
                f"annotation {ENGINE_ANNOTATION}: wasmtime"
            )
    kernel_made = {"dev", "proc", "sys"}
    names = set()
    with contextlib.suppress(OSError):
        names = {entry.name for entry in os.scandir(bundle.rootfs) if entry.is_dir(follow_symlinks=False)}
    names |= {one["destination"].split("/")[1] for one in bundle.mounts if one["destination"].count("/") >= 1}
    return tuple(
        Preopen(os.path.join(bundle.rootfs, name), "/" + name, True)
        for name in sorted(names - kernel_made)
        if name
    )
