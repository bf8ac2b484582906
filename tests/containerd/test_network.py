"""The pod network's range avoids every other one."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmlab.containerd import network, programs
from wasmlab.errors import ClusterError


@given(
    st.integers(0, 2**32 - 1), st.lists(st.tuples(st.integers(180, 223), st.integers(0, 255)), max_size=40)
)
def test_it_overlaps_nothing_in_use(seed: int, taken: list[tuple[int, int]]) -> None:
    used = [ipaddress.IPv4Network(f"10.{a}.{b}.0/24") for a, b in taken]
    subnet = network.choose_subnet(f"{seed:08x}", used)
    assert subnet.prefixlen == 24
    assert not any(subnet.overlaps(other) for other in used)


def test_a_full_machine_is_said() -> None:
    with pytest.raises(ClusterError, match="no free address range"):
        network.choose_subnet("0", [ipaddress.IPv4Network("10.0.0.0/8")])


@pytest.mark.skipif(programs.which("ip") is None, reason="ip is not installed")
def test_loopback_is_in_use() -> None:
    ip = programs.which("ip")
    assert ip is not None
    assert ipaddress.IPv4Network("127.0.0.0/8") in network.used_subnets(ip)
