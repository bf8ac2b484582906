"""Mount options, overlay options, verdicts: what decides without doing."""

from __future__ import annotations

import signal

import pytest

from wasmlab.sandbox.spec import Outcome
from wasmlab.shim import kernel, mounts, verdict


def test_mount_options():
    found = mounts.parse_options(
        ["rbind", "ro", "nosuid", "rw", "rslave", "size=64k", "mode=755", "relatime"]
    )
    assert found.flags == kernel.MS_BIND | kernel.MS_REC | kernel.MS_NOSUID | kernel.MS_RELATIME
    assert found.propagation == kernel.MS_SLAVE | kernel.MS_REC
    assert found.data == ("size=64k", "mode=755")
    assert mounts.parse_options(["defaults", "x-y=z", ""]) == (0, 0, ())


def test_long_overlay_options_are_made_relative():
    lower = ":".join(f"/var/lib/containerd/snapshots/{number}/fs" for number in range(300))
    data = (f"lowerdir={lower}", "upperdir=/var/lib/u")
    assert len(",".join(data)) > 4096
    directory, short = mounts.shorten_overlay(data)
    assert directory == "/var/lib/containerd/snapshots"
    assert short[0].startswith("lowerdir=0/fs:1/fs:2/fs")
    assert len(",".join(short)) < 4096
    assert mounts.shorten_overlay(("lowerdir=/a",)) == (None, ("lowerdir=/a",))


def test_capability_masks():
    assert kernel.capability_mask(["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_NONE"]) == 1 | 1 << 21
    assert kernel.CAPABILITIES[40] == "CHECKPOINT_RESTORE"


@pytest.mark.parametrize(
    ("outcome", "wait_status", "oom", "expected"),
    [
        (Outcome(0), 0, False, (0, False, "")),
        (Outcome(255), 0, False, (255, False, "")),
        (Outcome(143, None, "terminated by SIGTERM"), 15, False, (143, False, "terminated by SIGTERM")),
        (Outcome(137, None, "terminated by SIGKILL"), 9, False, (137, False, "terminated by SIGKILL")),
        (Outcome(None, "unreachable", "wasm trap"), 0, False, (134, False, "unreachable: wasm trap")),
        (Outcome(None, "out_of_memory", "m"), 0, False, (137, True, "out_of_memory: m")),
        (Outcome(None, "link", "m"), 0, False, (128, False, "link: m")),
        (Outcome(None, "crash", "m"), signal.SIGSEGV, False, (139, False, "crash: m")),
        (Outcome(None, "killed", "m"), 9, False, (137, False, "killed: m")),
        (Outcome(None, "killed", "m"), 9, True, (137, True, "out of memory: killed at the limit of 5 bytes")),
        # It ended by itself, whatever the kernel killed beside it.
        (Outcome(3), 0, True, (3, False, "")),
    ],
)
def test_ends(outcome, wait_status, oom, expected):
    assert verdict.read(outcome, wait_status, oom_killed=oom, memory_limit_bytes=5) == expected
