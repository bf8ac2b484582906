"""What ``/configz`` says: this node's settings under the names of KubeletConfiguration, nothing secret: pure.

References
----------
``k8s.io/kubelet/config/v1beta1`` (KubeletConfiguration).
"""

from __future__ import annotations

from typing import Any

from wasmlab.node.config import NodeConfig

Json = dict[str, Any]


def of(config: NodeConfig) -> Json:
    """v1beta1.KubeletConfiguration, as far as it applies."""
    return {
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "address": config.address,
        "port": config.port,
        "readOnlyPort": 0,
        "authentication": {
            "x509": {"clientCAFile": str(config.client_ca or "")},
            "webhook": {"enabled": True, "cacheTTL": "2m0s"},
            "anonymous": {"enabled": False},
        },
        "authorization": {
            "mode": "Webhook",
            "webhook": {"cacheAuthorizedTTL": "5m0s", "cacheUnauthorizedTTL": "30s"},
        },
        "serverTLSBootstrap": True,
        "rotateCertificates": True,
        "maxPods": config.max_pods,
        "podCIDR": config.pod_cidr or "",
        "nodeStatusReportFrequency": f"{config.intervals.node_report_s:g}s",
        "containerLogMaxSize": str(config.log_max_bytes),
        "serializeImagePulls": False,
        "maxParallelImagePulls": config.parallel_pulls,
        "enableServer": True,
        "enableSystemLogHandler": False,
    }
