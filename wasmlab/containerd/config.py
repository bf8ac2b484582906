"""Configuration of containerd, the kubelet and CNI as text. Pure.

References
----------
containerd docs/man/containerd-config.toml.5.md, docs/cri/config.md (versions 2 and 3), docs/hosts.md;
kubelet.config.k8s.io/v1beta1; CNI specification 1.0.0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wasmlab.containerd.runtimeclass import HANDLERS

RUNC = "io.containerd.runc.v2"


def containerd_toml(
    major: int,
    *,
    root: Path,
    state: Path,
    socket: Path,
    runc_root: Path,
    opt: Path,
    sandbox_image: str,
    cni_bin: Path,
    cni_conf: Path,
    registries: Path,
    runtimes: Mapping[str, str] = HANDLERS,
) -> str:
    """Return the configuration of a private containerd.

    Parameters
    ----------
    major : int
        1: version 2 of the format (containerd 1.x). 2: version 3 (containerd 2.x).
    root, state, socket : Path
        Its directories and its socket.
    runc_root : Path
        Where runc keeps its state.
    opt : Path
        Where packages installed by containerd would go; it makes the directory.
    sandbox_image : str
        The pause image; it must have been imported.
    cni_bin, cni_conf : Path
        CNI's plugins and configuration.
    registries : Path
        Directory with a hosts.toml per registry.
    runtimes : mapping
        Handler -> runtime type, besides runc.
    """
    if major >= 2:
        cri, images = "io.containerd.cri.v1.runtime", "io.containerd.cri.v1.images"
        image_part = [
            f"[plugins.'{images}']",
            "  snapshotter = 'overlayfs'",
            # Only the pods' own images are garbage; ours would otherwise be collected by an eager kubelet.
            f"  [plugins.'{images}'.pinned_images]",
            f"    sandbox = {_string(sandbox_image)}",
            f"  [plugins.'{images}'.registry]",
            f"    config_path = {_string(registries)}",
        ]
        sandbox = []
        cni_bins = f"    bin_dirs = [{_string(cni_bin)}]"
    else:
        cri = "io.containerd.grpc.v1.cri"
        image_part = [f"[plugins.'{cri}'.registry]", f"  config_path = {_string(registries)}"]
        sandbox = [f"  sandbox_image = {_string(sandbox_image)}"]
        cni_bins = f"    bin_dir = {_string(cni_bin)}"
    lines = [
        f"version = {3 if major >= 2 else 2}",
        f"root = {_string(root)}",
        f"state = {_string(state)}",
        # The defaults listen where a system's containerd does, or load what needs other file systems.
        "disabled_plugins = [" + ", ".join(_string(p) for p in _DISABLED[min(major, 2)]) + "]",
        "",
        "[grpc]",
        f"  address = {_string(socket)}",
        "",
        "[plugins.'io.containerd.internal.v1.opt']",
        f"  path = {_string(opt)}",
        "",
        f"[plugins.'{cri}']",
        *sandbox,
        # Without CAP_SYS_RESOURCE a process cannot make itself less likely to be killed than its parent is.
        "  restrict_oom_score_adj = true",
        # Namespaces then lie under `state`, and go with it.
        "  netns_mounts_under_state_dir = true",
        "  enable_selinux = false",
        f"  [plugins.'{cri}'.cni]",
        cni_bins,
        f"    conf_dir = {_string(cni_conf)}",
        f"  [plugins.'{cri}'.containerd]",
        "    default_runtime_name = 'runc'",
        *(["    snapshotter = 'overlayfs'"] if major < 2 else []),
        f"    [plugins.'{cri}'.containerd.runtimes.runc]",
        f"      runtime_type = {_string(RUNC)}",
        f"      [plugins.'{cri}'.containerd.runtimes.runc.options]",
        f"        Root = {_string(runc_root)}",
        "        SystemdCgroup = false",
    ]
    for handler, kind in runtimes.items():
        lines += [
            f"    [plugins.'{cri}'.containerd.runtimes.{handler}]",
            f"      runtime_type = {_string(kind)}",
            # The shim reads which engine a pod asks for.
            "      pod_annotations = ['wasmlab.dev/*']",
            "      container_annotations = ['wasmlab.dev/*']",
        ]
    return "\n".join([*lines, "", *image_part]) + "\n"


_DISABLED: dict[int, tuple[str, ...]] = {
    1: (
        "io.containerd.snapshotter.v1.aufs",
        "io.containerd.snapshotter.v1.btrfs",
        "io.containerd.snapshotter.v1.devmapper",
        "io.containerd.snapshotter.v1.zfs",
        "io.containerd.tracing.processor.v1.otlp",
        "io.containerd.internal.v1.tracing",
    ),
    2: (
        "io.containerd.snapshotter.v1.blockfile",
        "io.containerd.snapshotter.v1.btrfs",
        "io.containerd.snapshotter.v1.devmapper",
        "io.containerd.snapshotter.v1.erofs",
        "io.containerd.snapshotter.v1.zfs",
        "io.containerd.differ.v1.erofs",
        "io.containerd.tracing.processor.v1.otlp",
        "io.containerd.internal.v1.tracing",
        "io.containerd.nri.v1.nri",
    ),
}


def handlers_snippet(major: int, runtimes: Mapping[str, str] = HANDLERS) -> str:
    """Return a file with our runtimes alone, for containerd's ``imports``."""
    return f"version = {3 if major >= 2 else 2}\n{handlers_table(major, runtimes)}"


def handlers_table(major: int, runtimes: Mapping[str, str] = HANDLERS) -> str:
    """Return the tables of our runtimes, to be added to a configuration that says its version.

    Parameters
    ----------
    major : int
        1: for version 2 of the format. 2: for version 3.
    """
    cri = "io.containerd.cri.v1.runtime" if major >= 2 else "io.containerd.grpc.v1.cri"
    lines = []
    for handler, kind in runtimes.items():
        lines += [
            f"[plugins.'{cri}'.containerd.runtimes.{handler}]",
            f"  runtime_type = {_string(kind)}",
            "  pod_annotations = ['wasmlab.dev/*']",
            "  container_annotations = ['wasmlab.dev/*']",
        ]
    return "\n".join(lines) + "\n"


def hosts_toml(registry: str) -> str:
    """Return the hosts.toml for a registry on this machine that speaks plain http."""
    url = _string(f"http://{registry}")
    return f'server = {url}\n\n[host.{url}]\n  capabilities = ["pull", "resolve"]\n'


def kubelet_configuration(
    *,
    socket: Path,
    root: Path,
    logs: Path,
    address: str,
    port: int,
    ca: Path,
    cgroup: str,
    evented: bool,
    max_pods: int = 250,
) -> dict[str, Any]:
    """Return the KubeletConfiguration of a lab's node.

    Parameters
    ----------
    socket : Path
        containerd's.
    root : Path
        The kubelet's directory.
    logs : Path
        Where the containers' logs go.
    address, port : str, int
        Where it listens: an address that only this machine has.
    ca : Path
        The cluster's certificate authority; who presents a certificate of it may ask, if the API server agrees.
    cgroup : str
        Below which all pods are.
    evented : bool
        Learn of containers' ends by events, not by listing (needs containerd 2).
    max_pods : int
        How many pods the scheduler sends here.
    """
    endpoint = f"unix://{socket}"
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": endpoint,
        "imageServiceEndpoint": endpoint,
        "address": address,
        "port": port,
        "readOnlyPort": 0,
        "healthzPort": 0,
        "rotateCertificates": True,
        "serverTLSBootstrap": True,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(ca)},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup,
        "cgroupsPerQOS": True,
        # The limits of pods and containers hold; the node as a whole is not fenced off from the rest of the machine.
        "enforceNodeAllocatable": [],
        "failCgroupV1": False,
        "failSwapOn": False,
        "podLogsDir": str(logs / "pods"),
        "volumePluginDir": str(root / "plugins-exec"),
        # A lab on a full disk still runs; nothing is evicted because the machine does something else too.
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "makeIPTablesUtilChains": False,
        "maxPods": max_pods,
        "resolvConf": "",
        "clusterDomain": "cluster.local",
        "protectKernelDefaults": False,
        # Without CAP_SYS_RESOURCE it may not lower its own score.
        "oomScoreAdj": 0,
        "registryPullQPS": 0,
        "serializeImagePulls": False,
        "eventRecordQPS": 0,
        "kubeAPIQPS": 200,
        "kubeAPIBurst": 400,
        "nodeStatusUpdateFrequency": "10s",
        "syncFrequency": "10s",
        "shutdownGracePeriod": "0s",
        "featureGates": {"EventedPLEG": evented},
        "logging": {"flushFrequency": "1s", "verbosity": 2},
    }


def cni_conflist(network: str, bridge: str, subnet: str, gateway: str, state: Path) -> str:
    """Return the pod network: one bridge of our own, addresses from `subnet`, no way out of the machine.

    Parameters
    ----------
    network, bridge : str
        Names of the network and of the bridge.
    subnet, gateway : str
        E.g. ``10.11.12.0/24`` and ``10.11.12.1``.
    state : Path
        Where host-local keeps the addresses given out.
    """
    return json.dumps(
        {
            "cniVersion": "1.0.0",
            "name": network,
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": bridge,
                    "isGateway": True,
                    "ipMasq": False,
                    "hairpinMode": True,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": str(state),
                        "ranges": [[{"subnet": subnet, "gateway": gateway}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
            ],
        },
        indent=2,
    )


def _string(value: object) -> str:
    # A JSON string is a TOML basic string, too.
    return json.dumps(str(value))
