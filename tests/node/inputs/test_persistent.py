"""From a claim to a directory, with an API that a test plays."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.node.spec.test_claims import POD, VOLUME, claim, expression, persistent, term
from wasmlab.node.inputs.notmounted import NotMounted
from wasmlab.node.inputs.persistent import place


class Objects:
    def __init__(self, **spec: Any) -> None:
        self.claim: Any = claim()
        self.volume: Any = persistent(**spec)

    async def get(self, namespace: str, reference: Any) -> Any:
        assert (namespace, reference) == ("ns", ("PersistentVolumeClaim", "c"))
        return self.claim

    async def of_cluster(self, plural: str, name: str) -> Any:
        if plural == "nodes":
            return {"metadata": {"name": name, "labels": {"kubernetes.io/hostname": "h"}}}
        assert (plural, name) == ("persistentvolumes", "pv")
        return self.volume


async def follow(objects: Any) -> Path:
    return await place(objects, "n", POD, VOLUME)


async def why_not(objects: Any) -> str:
    with pytest.raises(NotMounted) as caught:
        await follow(objects)
    return caught.value.message


async def test_a_host_path_and_a_local_volume(tmp_path: Path) -> None:
    there, made = tmp_path / "there", tmp_path / "made"
    there.mkdir()
    here = term(matchExpressions=[expression("In", "h", key="kubernetes.io/hostname")])
    assert await follow(Objects(local={"path": str(there)}, **here)) == there
    assert await follow(Objects(hostPath={"path": str(made), "type": "DirectoryOrCreate"})) == made
    assert made.is_dir()


async def test_a_claim_that_is_not_bound_is_told_as_the_kubelet_does() -> None:
    objects = Objects(local={"path": "/"})
    objects.claim = claim("Pending", None)
    assert await why_not(objects) == (
        "Unable to attach or mount volumes: unmounted volumes=[v], unattached volumes=[], failed to process"
        " volumes=[v]: error processing PVC ns/c: PVC is not bound"
    )
    objects.claim = None
    assert (
        'error processing PVC ns/c: failed to fetch PVC from API server: persistentvolumeclaims "c"'
        in await why_not(objects)
    )


async def test_what_is_elsewhere_or_not_there(tmp_path: Path) -> None:
    elsewhere = term(matchExpressions=[expression("In", "other", key="kubernetes.io/hostname")])
    assert await why_not(Objects(local={"path": str(tmp_path)}, **elsewhere)) == (
        'MountVolume.NodeAffinity check failed for volume "pv" : no matching NodeSelectorTerms'
    )
    missing, plain = tmp_path / "missing", tmp_path / "plain"
    plain.touch()
    start = 'MountVolume.SetUp failed for volume "pv" : '
    assert await why_not(Objects(local={"path": str(missing)})) == f'{start}path "{missing}" does not exist'
    assert await why_not(Objects(local={"path": str(plain)})) == (
        f"{start}only directory and block device are supported"
    )
    assert "not an absolute path without '..'" in await why_not(Objects(local={"path": "/a/../b"}))
    said = await why_not(Objects(hostPath={"path": str(missing), "type": "Directory"}))
    assert said == f"{start}hostPath type check failed: {missing} is not a directory"
    assert not missing.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a device file")
async def test_a_block_device_is_refused(tmp_path: Path) -> None:
    device = tmp_path / "device"
    try:
        os.mknod(device, 0o060600, os.makedev(7, 250))
    except PermissionError:
        pytest.skip("this machine's root may not make device files")
    assert "is a block device: this node mounts none" in await why_not(Objects(local={"path": str(device)}))


@pytest.mark.parametrize("kind", ["nfs", "csi", "iscsi", "somethingNew"])
async def test_other_kinds_are_refused_by_name(kind: str) -> None:
    assert await why_not(Objects(**{kind: {"server": "s"}})) == (
        f'MountVolume.SetUp failed for volume "pv" : a persistent volume of type {kind} is not supported by this node;'
        " hostPath and local are"
    )
