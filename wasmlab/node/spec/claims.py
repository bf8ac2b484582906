"""Persistent volume claims: which place on this node a bound claim stands for, or why none. Pure.

Binding a claim to a volume is the work of the cluster's controller, choosing a node that has the volume that of its
scheduler. The node follows what is bound, looks again whether the volume is here, and serves what is a path of its own:
``hostPath`` and ``local``. All others (``nfs``, ``csi``, ...) would have to be attached or mounted, and are refused by
name.

References
----------
``k8s.io/kubernetes/pkg/kubelet/volumemanager/populator/desired_state_of_world_populator.go`` (``createVolumeSpec``,
``getPVCExtractPV``, ``getPVSpec``: checks and messages); ``pkg/kubelet/volumemanager/volume_manager.go``
(``WaitForAttachAndMount``); ``k8s.io/component-helpers/storage/volume/helpers.go`` (``CheckNodeAffinity``),
``storage/ephemeral/ephemeral.go``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Json = dict[str, Any]

KINDS = ("persistentVolumeClaim", "ephemeral")
SERVED = ("hostPath", "local")
_PROTECTION = "kubernetes.io/pvc-protection"
# What a v1.PersistentVolumeSpec has beside the one key that says what the volume is.
_COMMON = frozenset(
    (
        *(
            "accessModes",
            "capacity",
            "claimRef",
            "mountOptions",
            "nodeAffinity",
            "volumeMode",
            "storageClassName",
        ),
        *("persistentVolumeReclaimPolicy", "volumeAttributesClassName"),
    )
)


class ClaimError(Exception):
    """The claim cannot be followed; the text is the kubelet's."""


def name_of(volume: Json, pod: Json) -> str:
    """The claim's name: its own, or that of the claim which the controller makes for an ephemeral volume."""
    if "ephemeral" in volume:
        return f"{pod['metadata']['name']}-{volume['name']}"
    return str(volume["persistentVolumeClaim"]["claimName"])


def read_only(volume: Json) -> bool:
    """Whether the pod's claim is for reading only."""
    return bool((volume.get("persistentVolumeClaim") or {}).get("readOnly"))


def volume_of(volume: Json, pod: Json, claim: Json | None) -> str:
    """Return the name of the PersistentVolume that a claim is bound to.

    Parameters
    ----------
    volume : dict
        Of the pod.
    claim : dict or None
        The PersistentVolumeClaim; None if there is none.

    Raises
    ------
    ClaimError
        It is not bound, or not for this pod.
    """
    name = name_of(volume, pod)
    if claim is None:
        raise ClaimError(f'failed to fetch PVC from API server: persistentvolumeclaims "{name}" not found')
    meta = claim["metadata"]
    if meta.get("deletionTimestamp") and _PROTECTION not in (meta.get("finalizers") or ()):
        raise ClaimError("PVC is being deleted")
    if (claim.get("status") or {}).get("phase") != "Bound":
        raise ClaimError("PVC is not bound")
    bound = claim["spec"].get("volumeName")
    if not bound:
        raise ClaimError("PVC has empty pvc.Spec.VolumeName")
    if "ephemeral" in volume:
        owners = [one for one in meta.get("ownerReferences") or () if one.get("controller")]
        if not owners or owners[0].get("uid") != pod["metadata"]["uid"]:
            space, who = meta["namespace"], pod["metadata"]
            raise ClaimError(
                f"PVC {space}/{name} was not created for pod {who['namespace']}/{who['name']} (pod is not owner)"
            )
    return str(bound)


def source_of(volume: Json, claim: Json, bound: str, persistent: Json | None) -> tuple[str, Json]:
    """Return what a PersistentVolume is, (kind, body).

    Parameters
    ----------
    bound : str
        The PersistentVolume's name.
    persistent : dict or None
        The PersistentVolume; None if there is none.

    Raises
    ------
    ClaimError
        It is not the claim's, or has no file system.
    """
    if persistent is None:
        raise ClaimError(f'failed to fetch PV {bound} from API server: persistentvolumes "{bound}" not found')
    spec = persistent["spec"]
    reference = spec.get("claimRef")
    if not reference:
        raise ClaimError(
            f"found PV object {bound} but it has a nil pv.Spec.ClaimRef indicating it is not yet bound to the claim"
        )
    if reference.get("uid") != claim["metadata"]["uid"]:
        raise ClaimError(
            f"found PV object {bound} but its pv.Spec.ClaimRef.UID {reference.get('uid')} does not point to claim.UID"
            f" {claim['metadata']['uid']}"
        )
    mode = spec.get("volumeMode") or "Filesystem"
    if mode != "Filesystem":
        raise ClaimError(f"volume {volume['name']} has volumeMode {mode}, but is specified in volumeMounts")
    kind = next((key for key in spec if key not in _COMMON), "nothing")
    return kind, spec.get(kind) or {}


def is_here(persistent: Json, node: Json) -> bool:
    """Whether a PersistentVolume may be used on a node.

    Raises
    ------
    ValueError
        Its nodeAffinity compares with what is no number.
    """
    affinity = (persistent["spec"].get("nodeAffinity") or {}).get("required")
    if affinity is None:
        return True
    labels = node["metadata"].get("labels") or {}
    fields = {"metadata.name": node["metadata"]["name"]}
    return any(_matches(term, labels, fields) for term in affinity.get("nodeSelectorTerms") or ())


def _matches(term: Json, labels: Mapping[str, str], fields: Mapping[str, str]) -> bool:
    wanted = [(one, labels) for one in term.get("matchExpressions") or ()]
    wanted += [(one, fields) for one in term.get("matchFields") or ()]
    return bool(wanted) and all(_holds(one, values) for one, values in wanted)


def _holds(one: Json, given: Mapping[str, str]) -> bool:
    value, operator = given.get(one["key"]), one["operator"]
    values: Sequence[str] = one.get("values") or ()
    if operator == "In":
        return value in values
    if operator == "NotIn":
        return value not in values
    if operator == "Exists":
        return value is not None
    if operator == "DoesNotExist":
        return value is None
    if value is None:
        return False
    return int(value) > int(values[0]) if operator == "Gt" else int(value) < int(values[0])
