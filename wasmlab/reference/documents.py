"""What every command with ``--json`` prints: the keys, and what they mean. Pure.

The names are kept: a later version may add keys, but neither removes one nor changes what it means. Tests compare the
table with what the commands print.
"""

from __future__ import annotations

from collections.abc import Mapping

#: What a command prints that failed, whichever it is.
ERROR = {
    "error.kind": "the class of the error (`NotFound`, `PrerequisiteError` ...), `Usage` or `Interrupted`",
    "error.message": "what was tried and what happened",
    "error.remedy": "what to do; null if there is nothing to say",
    "error.exit_code": "the exit code of the command",
}

_MEASURED = {
    "runs": "how many runs there were, failed ones included",
    "failed": "how many of them failed",
    "measured": "when and where, in one line",
    "interrupted": "whether Ctrl-C ended it: these are the runs so far",
    "notes": "what a reader of the figures must know: the end, warm-up, unsteadiness",
    "arms": "per path, engine, mode and workload: `n`, `failed`, `median_ms` with its interval `low_ms` and `high_ms`, "
    "`p95_ms`, `first_byte_ms`; null where nothing succeeded",
    "headlines": "of `bench figures`: `name`, `unit`, `median`, `low`, `high`, `p95`, `n`, `met`; else empty",
    "left_out": "what `bench scale` left out, and why",
    "files": "what was written",
}
_EXECUTED = {
    "out": "directory of pages, plots and results",
    "index": "the page to start at",
    "succeeded": "how many succeeded",
    "results": "per notebook: `name`, `title`, `status` (ok, failed, interrupted, not run), `duration_s`, `error`",
}

#: Command -> key -> meaning.
DOCUMENTS: Mapping[str, Mapping[str, str]] = {
    "oci push": {
        "reference": "as it was understood, with its tag",
        "digest": "of the manifest",
        "layerDigest": "of the module",
        "size": "of the module, in bytes",
        "layout": "wasm-to-oci or cncf",
    },
    "oci pull": {
        "reference": "as it was understood",
        "manifestDigest": "what the reference resolved to",
        "digest": "of the module",
        "size": "of the module, in bytes",
        "out": "the file that was written",
    },
    "oci pack": {
        "reference": "as it was understood",
        "digest": "of the manifest or index",
        "size": "of all blobs together, in bytes",
        "for": "node, containerd, both or layer",
        "platforms": "what it runs on",
    },
    "oci inspect": {
        "reference": "as it was understood",
        "digest": "of the manifest",
        "mediaType": "of the manifest",
        "layout": "wasm-to-oci, cncf, container image, index or other",
        "layer": "the module's descriptor (`mediaType`, `digest`, `size`); null if there is none",
        "problem": "why it does not run on a WASM node; null if it does",
        "manifest": "the manifest itself",
    },
    "up": {
        "kubeconfig": "path of an administrator's kubeconfig",
        "registry": "host:port of the registry",
        "node": "name of the WASM node; null with --no-node",
        "dir": "directory of the lab",
        "server": "URL of the API server",
        "pid": "process of the control plane",
    },
    "down": {
        "dir": "directory of the lab",
        "ended": "what ended, by name",
        "killed": "what of it had to be killed",
    },
    "status": {
        "dir": "directory of the lab",
        "running": "whether the control plane runs; if not, what follows `nodes` is left out",
        "ready": "whether it has become ready",
        "nodes": "per node: `name`, `ready`, `agent_pid` (null if no agent runs here), `arch`",
        "pid": "process of the control plane",
        "server": "URL of the API server",
        "registry": "host:port of the registry",
        "kubeconfig": "path of an administrator's kubeconfig",
        "versions": "of Kubernetes and etcd",
        "started": "when it was started",
    },
    "node join": {
        "node": "name of the Node",
        "kubeconfig": "path of the node's own credentials",
        "argv": "the command that starts its agent",
    },
    "containerd up": {
        "node": "name of the Node",
        "dir": "directory of all that belongs to it",
        "containerd": "version",
        "socket": "containerd's",
        "runtimeClasses": "the RuntimeClasses it serves",
    },
    "containerd down": {"dir": "directory of the lab", "ended": "names of the nodes that ended"},
    "containerd kind": {
        "config": "the configuration for `kind create cluster --config`",
        "runtimeClasses": "manifests to apply afterwards",
    },
    "containerd bundle": {"dir": "the directory that was written", "prefix": "where it is to be on the node"},
    "cluster grant": {
        "kubeconfig": "the kubeconfig that was written",
        "namespace": "the lab's namespace",
        "expires": "until when its token is valid",
    },
    "cluster clean": {
        "removed": "what was removed; with --dry-run the key is `found`, and nothing was removed",
    },
    "bench": _MEASURED,
    "bench local": _MEASURED,
    "bench node": _MEASURED,
    "bench containerd": _MEASURED,
    "bench figures": _MEASURED,
    "bench record": _MEASURED,
    "bench scale": _MEASURED,
    "bench report": {"files": "what was written"},
    "bench workloads": {
        "workloads": "each with `name`, `kind`, `size_bytes`, `typical_ms`, `paths`, `engines`, "
        "`expected_digest`, `shows`"
    },
    "report write": {"files": "what was written"},
    "report compare": {
        "verdict": "in one word: same, slower, faster, unclear or refused",
        "before": "the first set: `measured`, `recorded`, `runs`, `failed`, `environment`",
        "after": "the second set, likewise",
        "refused": "why they must not be compared; empty if they may",
        "environment": "what the controls say of the machine: `verdict` and interval; null without controls",
        "arms": "per arm: `arm`, `verdict`, the ratio as measured and `adjusted` for the machine, with intervals",
        "notes": "what a reader must know",
        "differences": "what the two sets differ in",
        "level": "of the intervals",
        "margin": "the largest relative change that counts as none",
    },
    "lab": _EXECUTED,
    "lab --list": {
        "notebooks": "each with `name`, `title` and its `parameters` (`name`, `type`, `default`, `help`)"
    },
    "batch": {**_EXECUTED, "published": "where the notebooks were copied to; null for a local directory"},
    "batch --list": {"runs": "each with `name`, `notebook`, `parameters`, `done`"},
    "doctor": {"findings": "each with `name`, `state` (ok, limited, missing), `detail`, `remedy`"},
    "doctor --engines": {
        "head": "what the first column holds, then the engines",
        "rows": "per capability: its name, then yes or no per engine, with the number of a note",
        "notes": "the notes; the first has the number 1",
    },
}

#: Commands without --json, and why.
TEXT_ONLY = {
    "run": "stdout is the module's; --outcome FILE writes how it ended",
    "kubectl": "its output is kubectl's, which has -o json",
    "node run": "prints nothing but its log",
    "node unit": "prints a systemd unit",
    "containerd config": "prints a part of containerd's configuration",
    "containerd installer": "prints manifests",
    "cluster rbac": "prints manifests",
    "bench plan": "prints a plan",
    "jupyter": "opens JupyterLab",
    "completion": "prints a script",
}


def page() -> str:
    """Return the page."""
    parts = [
        "# JSON of the commands",
        "What `--json` prints: one document, on one line, on stdout; messages and progress go to stderr. Keys are "
        "kept from version to version, and new ones may be added.",
        "A command that fails prints an error instead, unless it had printed its document already (a bench of which "
        "every run failed, say). The exit codes are on [the page of the commands](cli.md#exit-codes).",
        _table(ERROR),
        "```text\n$ wasmlab oci inspect --json 127.0.0.1:1/hello 2>/dev/null\n"
        '{"error": {"kind": "RegistryUnavailable", "message": "cannot fetch the manifest of ...", '
        '"remedy": "check ...", "exit_code": 1}}\n```',
    ]
    for command, keys in DOCUMENTS.items():
        parts += [f"## wasmlab {command}", _table(keys)]
    parts += ["## Commands without it", "| command | |\n| --- | --- |"]
    parts[-1] += "".join(f"\n| `wasmlab {command}` | {why} |" for command, why in TEXT_ONLY.items())
    return "\n\n".join(parts) + "\n"


def _table(keys: Mapping[str, str]) -> str:
    return "| key | |\n| --- | --- |" + "".join(f"\n| `{key}` | {what} |" for key, what in keys.items())
