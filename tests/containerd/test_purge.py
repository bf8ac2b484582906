"""A lab's directory is not removed through what is mounted in it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from wasmlab.cluster.shutdown import shut_down
from wasmlab.errors import ClusterError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


def test_purge_refuses_while_something_is_mounted_below(tmp_path: Path) -> None:
    precious, lab = tmp_path / "precious", tmp_path / "lab"
    mounted = lab / "containerd/node/kubelet"
    for directory in (precious, mounted):
        directory.mkdir(parents=True)
    (precious / "file").write_text("somebody else's")
    for name in ("version.json", "lock"):
        (lab / name).write_text("{}")
    subprocess.run(["mount", "--bind", precious, mounted], check=True)
    try:
        with pytest.raises(ClusterError, match="is mounted in it"):
            shut_down(lab, purge=True)
    finally:
        subprocess.run(["umount", mounted], check=True)
    shut_down(lab, purge=True)
    assert not lab.exists()
    assert (precious / "file").read_text() == "somebody else's"
