"""Why a pod's volume is not ready, in the words of the kubelet's event FailedMount.

References
----------
``k8s.io/kubernetes/pkg/volume/util/operationexecutor/operation_executor.go`` (``generateVolumeMsg``);
``pkg/kubelet/volumemanager/volume_manager.go`` (``WaitForAttachAndMount``).
"""

from __future__ import annotations


class NotMounted(Exception):
    """A volume cannot be set up, now or ever; `message` is the one of the FailedMount event."""

    def __init__(self, volume: str, why: str, *, step: str = "SetUp failed") -> None:
        super().__init__(why)
        self.message = f'MountVolume.{step} for volume "{volume}" : {why}'


class NotBound(NotMounted):
    """A volume's claim cannot be followed."""

    def __init__(self, volume: str, claim: str, why: str) -> None:
        super().__init__(volume, why)
        self.message = (
            f"Unable to attach or mount volumes: unmounted volumes=[{volume}], unattached volumes=[], failed to process"
            f" volumes=[{volume}]: error processing PVC {claim}: {why}"
        )
