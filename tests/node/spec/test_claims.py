"""Claims and what they are bound to, as the kubelet looks at them."""

from __future__ import annotations

from typing import Any

import pytest

from wasmlab.node.spec import claims

POD: dict[str, Any] = {"metadata": {"name": "p", "namespace": "ns", "uid": "pod-uid"}}
VOLUME: dict[str, Any] = {"name": "v", "persistentVolumeClaim": {"claimName": "c"}}
EPHEMERAL: dict[str, Any] = {"name": "v", "ephemeral": {"volumeClaimTemplate": {}}}


def claim(phase: str = "Bound", volume: str | None = "pv", **meta: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "c", "namespace": "ns", "uid": "claim-uid", **meta},
        "spec": {"volumeName": volume} if volume else {},
        "status": {"phase": phase},
    }


def persistent(uid: str | None = "claim-uid", **spec: Any) -> dict[str, Any]:
    common = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "x"}
    common |= {"persistentVolumeReclaimPolicy": "Retain", **({"claimRef": {"uid": uid}} if uid else {})}
    return {"metadata": {"name": "pv"}, "spec": {**common, **spec}}


def test_a_bound_claim_leads_to_its_volume() -> None:
    assert claims.name_of(VOLUME, POD) == "c"
    assert claims.volume_of(VOLUME, POD, claim()) == "pv"
    found = claims.source_of(VOLUME, claim(), "pv", persistent(hostPath={"path": "/data"}))
    assert found == ("hostPath", {"path": "/data"})
    assert claims.source_of(VOLUME, claim(), "pv", persistent(csi={"driver": "d"}))[0] == "csi"
    assert not claims.read_only(VOLUME)
    assert claims.read_only({"name": "v", "persistentVolumeClaim": {"claimName": "c", "readOnly": True}})


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (None, 'failed to fetch PVC from API server: persistentvolumeclaims "c" not found'),
        (claim("Pending", None), "PVC is not bound"),
        (claim("Lost"), "PVC is not bound"),
        (claim(volume=None), "PVC has empty pvc.Spec.VolumeName"),
        (claim(deletionTimestamp="2026-01-01T00:00:00Z"), "PVC is being deleted"),
    ],
)
def test_why_a_claim_cannot_be_followed(found: Any, why: str) -> None:
    with pytest.raises(claims.ClaimError) as caught:
        claims.volume_of(VOLUME, POD, found)
    assert str(caught.value) == why


def test_a_claim_that_is_protected_while_it_is_deleted_still_serves() -> None:
    protected = claim(deletionTimestamp="2026-01-01T00:00:00Z", finalizers=["kubernetes.io/pvc-protection"])
    assert claims.volume_of(VOLUME, POD, protected) == "pv"


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (None, 'failed to fetch PV pv from API server: persistentvolumes "pv" not found'),
        (persistent(None, hostPath={}), "nil pv.Spec.ClaimRef"),
        (persistent("another", hostPath={}), "ClaimRef.UID another does not point to claim.UID claim-uid"),
        (
            persistent(local={}, volumeMode="Block"),
            "volume v has volumeMode Block, but is specified in volumeMounts",
        ),
    ],
)
def test_why_a_volume_is_not_the_claims(found: Any, why: str) -> None:
    with pytest.raises(claims.ClaimError, match=why):
        claims.source_of(VOLUME, claim(), "pv", found)


def test_the_claim_of_an_ephemeral_volume_has_to_be_the_pods_own() -> None:
    assert claims.name_of(EPHEMERAL, POD) == "p-v"
    mine = claim(ownerReferences=[{"uid": "pod-uid", "controller": True}])
    assert claims.volume_of(EPHEMERAL, POD, mine) == "pv"
    for other in (claim(), claim(ownerReferences=[{"uid": "another", "controller": True}])):
        with pytest.raises(
            claims.ClaimError, match=r"PVC ns/p-v was not created for pod ns/p \(pod is not owner\)"
        ):
            claims.volume_of(EPHEMERAL, POD, other)


def term(**kinds: Any) -> dict[str, Any]:
    return {"nodeAffinity": {"required": {"nodeSelectorTerms": [kinds]}}}


def expression(operator: str, *values: str, key: str = "k") -> dict[str, Any]:
    return {"key": key, "operator": operator, **({"values": list(values)} if values else {})}


@pytest.mark.parametrize(
    ("affinity", "here"),
    [
        ({}, True),
        (term(matchExpressions=[expression("In", "a", "5")]), True),
        (term(matchExpressions=[expression("In", "a")]), False),
        (term(matchExpressions=[expression("NotIn", "5")]), False),
        (term(matchExpressions=[expression("NotIn", "5", key="other")]), True),
        (term(matchExpressions=[expression("Exists"), expression("DoesNotExist", key="other")]), True),
        (term(matchExpressions=[expression("Exists"), expression("Exists", key="other")]), False),
        (term(matchExpressions=[expression("Gt", "4"), expression("Lt", "6")]), True),
        (term(matchExpressions=[expression("Gt", "5")]), False),
        (term(matchExpressions=[expression("Lt", "9", key="other")]), False),
        (term(matchFields=[expression("In", "n", key="metadata.name")]), True),
        (term(matchFields=[expression("In", "m", key="metadata.name")]), False),
        (term(), False),  # a term without conditions fits no node
    ],
)
def test_whether_a_volume_is_on_this_node(affinity: Any, here: bool) -> None:
    node = {"metadata": {"name": "n", "labels": {"k": "5"}}}
    assert claims.is_here(persistent(**affinity), node) is here
    both = {
        "nodeAffinity": {
            "required": {
                "nodeSelectorTerms": [{}, {"matchFields": [expression("Exists", key="metadata.name")]}]
            }
        }
    }
    assert claims.is_here(persistent(**both), node)  # one term that fits is enough
