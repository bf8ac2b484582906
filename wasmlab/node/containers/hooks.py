"""The lifecycle hooks of a container: postStart beside its beginning, preStop before its end.

What they can do is what Kubernetes lets them: exec (here: another instance of the module), httpGet, sleep. What came of
one is said in an event without what it printed, which may hold secrets.

References
----------
``k8s.io/kubernetes/pkg/kubelet/lifecycle/handlers.go``, ``pkg/kubelet/kuberuntime/kuberuntime_container.go``
(``startContainer`` step 4, ``executePreStopHook``).
"""

from __future__ import annotations

import asyncio
from typing import Any

from wasmlab.node.containers import actions

Json = dict[str, Any]


def of(container: Json, name: str) -> Json | None:
    """The handler of ``postStart`` or ``preStop``, if there is one."""
    return (container.get("lifecycle") or {}).get(name)


async def run(node: actions.Node, container: actions.Container, handler: Json, pod: str) -> str:
    """Run a hook to its end; it has no time limit of its own.

    Parameters
    ----------
    pod : str
        As messages name it.

    Returns
    -------
    str
        What went wrong; empty if nothing did.
    """
    name = container.record.name
    if handler.get("sleep"):
        await asyncio.sleep(float(handler["sleep"].get("seconds") or 0))
        return ""
    try:
        result = await actions.perform(node, container, handler, purpose="lifecycle", timeout_s=None)
    except actions.Failed as error:
        failure, output = str(error), ""
    else:
        # A hook's URL need only answer: the kubelet does not look at the status code.
        if result.good or (handler.get("httpGet") and result.output.startswith("HTTP probe failed")):
            return ""
        failure, output = "it failed", result.output
    if handler.get("exec"):
        command = " ".join(handler["exec"].get("command") or ())
        return (
            f'Exec lifecycle hook ([{command}]) for Container "{name}" in Pod "{pod}" failed'
            f' - error: {failure}, message: "{output}"'
        )
    if handler.get("httpGet"):
        path = handler["httpGet"].get("path") or ""
        return (
            f'HTTP lifecycle hook ({path}) for Container "{name}" in Pod "{pod}" failed'
            f" - error: {output or failure}"
        )
    return f"Cannot run handler: {failure}"
