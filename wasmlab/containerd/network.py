"""The pod network's bridge: an address range that nothing else on this machine uses, and the kubelet's own address.

The kubelet has to listen where the API server reaches it, and may not listen on a loopback address. The bridge's
address is neither loopback nor known to anybody outside.
"""

from __future__ import annotations

import ipaddress
import json
import subprocess
from pathlib import Path
from typing import Any

from wasmlab.errors import ClusterError, ProcessError

_TIMEOUT_S = 30.0
# Other software's favourites are left alone: 10.0-10.31 (LANs), 10.42 (k3s), 10.88 (podman), 10.96, 10.244 (kubeadm).
_SECOND_OCTETS = range(180, 224)


def choose_subnet(seed: str, used: list[ipaddress.IPv4Network]) -> ipaddress.IPv4Network:
    """Return a /24 that overlaps none of `used`. Pure; the same seed tries in the same order.

    Raises
    ------
    ClusterError
        If there is none.
    """
    start = int(seed, 16)
    count = len(_SECOND_OCTETS) * 256
    for offset in range(count):
        second, third = divmod((start + offset) % count, 256)
        subnet = ipaddress.IPv4Network(f"10.{_SECOND_OCTETS[second]}.{third}.0/24")
        if not any(subnet.overlaps(other) for other in used):
            return subnet
    raise ClusterError("no free address range for the pod network", remedy="look at `ip route`")


def used_subnets(ip: Path) -> list[ipaddress.IPv4Network]:
    """Return the ranges that addresses and routes of this machine are in."""
    found = []
    for route in _json(ip, "-4", "route", "show", "table", "all"):
        if (destination := route.get("dst", "default")) != "default":
            found.append(ipaddress.IPv4Network(destination.split()[-1], strict=False))
    for link in _json(ip, "-4", "address", "show"):
        for address in link.get("addr_info", []):
            found.append(ipaddress.IPv4Network(f"{address['local']}/{address['prefixlen']}", strict=False))
    return found


def make_bridge(ip: Path, name: str, gateway: str) -> None:
    """Make the bridge with its address, unless it is there."""
    if not Path("/sys/class/net", name).exists():
        _run(ip, "link", "add", name, "type", "bridge")
    _run(ip, "address", "replace", f"{gateway}/24", "dev", name)
    _run(ip, "link", "set", name, "up")


def _json(ip: Path, *args: str) -> list[dict[str, Any]]:
    text = _run(ip, "-json", *args)
    found: list[dict[str, Any]] = json.loads(text) if text.strip() else []
    return found


def _run(ip: Path, *args: str) -> str:
    argv = [str(ip), *args]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise ProcessError(f"`ip {' '.join(args)}` did not end", argv=argv) from None
    if done.returncode:
        raise ProcessError(
            f"`ip {' '.join(args)}` failed",
            argv=argv,
            returncode=done.returncode,
            log_tail=done.stderr,
            remedy="the container node needs CAP_NET_ADMIN and the kernel's bridge and veth drivers",
        )
    return done.stdout
