"""Every error that wasmlab raises on purpose.

The tree::

    WasmlabError                        everything below; carries ``remedy``
    ├── PrerequisiteError               something is missing on this machine
    ├── ProcessError                    a child process failed (argv, returncode, log_tail)
    ├── OCIError                        registries and artifacts
    │   ├── InvalidReference            ValueError
    │   ├── CredentialError             docker config or credential helper is unusable
    │   ├── RegistryError               the registry answered, and the answer is no
    │   │   ├── Unauthorized            401, 403
    │   │   └── NotFound                404
    │   ├── RegistryUnavailable         ConnectionError: refused, DNS, TLS
    │   │   └── RegistryTimeout         TimeoutError: connected, but too slow
    │   ├── DigestMismatch              the bytes are not what the digest says
    │   ├── SizeMismatch                fewer or more bytes than announced
    │   └── UnsupportedArtifact         not a WASM artifact (a container image, say)
    ├── WasmError                       modules and engines
    │   ├── InvalidModule               ValueError
    │   ├── LinkError                   an import nobody provides
    │   ├── Trap                        the guest trapped (kind)
    │   └── Unsupported                 the engine lacks a capability
    ├── SandboxError                    the worker machinery, not the guest
    │   └── WorkerLost                  a worker vanished with no outcome
    ├── ClusterError                    control plane, nodes, pods
    │   ├── NotReady                    TimeoutError: waited, with the events seen
    │   └── BootstrapError              a node could not join
    ├── BenchmarkError                  a measurement cannot be made or pooled
    └── NotebookError                   a notebook failed, or got unknown parameters

A module that exits with a non-zero code is a *result*, not an error. Errors that have a builtin counterpart are
also that builtin, so that callers may catch what they expect. All of them pickle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class WasmlabError(Exception):
    """Base of the tree.

    Parameters
    ----------
    message : str
        What was tried and what happened.
    remedy : str, optional
        What the reader can do about it.
    **context
        Facts that belong to the error; each becomes an attribute.
    """

    def __init__(self, message: str, *, remedy: str | None = None, **context: Any) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.context = context

    def __getattr__(self, name: str) -> Any:
        # Context is looked up here instead of being copied into attributes, so that it cannot shadow methods.
        context = self.__dict__.get("context", {})
        if name in context:
            return context[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __str__(self) -> str:
        return f"{self.message}\n  try: {self.remedy}" if self.remedy else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.remedy, self.context)


def _rebuild(
    cls: type[WasmlabError], message: str, remedy: str | None, context: dict[str, Any]
) -> WasmlabError:
    return cls(message, remedy=remedy, **context)


class PrerequisiteError(WasmlabError):
    """Something this machine does not have; ``remedy`` says how to get it."""


class ProcessError(WasmlabError):
    """A child process could not be started, or ended when it should not have.

    Parameters
    ----------
    argv : sequence of str
        The command line.
    returncode : int or None
        Its exit code, negative for a signal, None if it never started or still runs.
    log_tail : str
        The last lines it wrote.
    """

    def __init__(
        self,
        message: str,
        *,
        argv: Sequence[str] = (),
        returncode: int | None = None,
        log_tail: str = "",
        remedy: str | None = None,
        **context: Any,
    ) -> None:
        super().__init__(
            message, remedy=remedy, argv=tuple(argv), returncode=returncode, log_tail=log_tail, **context
        )

    def __str__(self) -> str:
        text = self.message
        if self.context["returncode"] is not None:
            text += f" (exit code {self.context['returncode']})"
        if self.context["log_tail"]:
            text += "\n  last lines of its log:\n" + "\n".join(
                f"    {line}" for line in self.context["log_tail"].splitlines()
            )
        return f"{text}\n  try: {self.remedy}" if self.remedy else text


class OCIError(WasmlabError):
    """Registries and artifacts."""


class InvalidReference(OCIError, ValueError):
    """The text is not an image reference."""


class CredentialError(OCIError):
    """The docker configuration or a credential helper could not be used."""


class RegistryError(OCIError):
    """The registry answered with an error: ``registry``, ``status``, ``code`` (of the OCI spec), ``detail``."""


class Unauthorized(RegistryError):
    """401 or 403."""


class NotFound(RegistryError):
    """404: no such repository, manifest or blob."""


class RegistryUnavailable(OCIError, ConnectionError):
    """No answer: refused, unknown host, TLS failure."""


class RegistryTimeout(RegistryUnavailable, TimeoutError):
    """The registry is there but did not answer within the deadline."""


class DigestMismatch(OCIError):
    """The content has another digest: ``expected``, ``actual``."""


class SizeMismatch(OCIError):
    """The content has another size: ``expected``, ``actual``, in bytes."""


class UnsupportedArtifact(OCIError):
    """The manifest is valid, but is no WASM artifact: ``media_type``."""


class WasmError(WasmlabError):
    """Modules and engines."""


class InvalidModule(WasmError, ValueError):
    """The bytes are not a WASM module (or the engine refuses it)."""


class LinkError(WasmError):
    """The module imports what the host does not provide."""


class Trap(WasmError):
    """The guest trapped: ``kind``."""


class Unsupported(WasmError):
    """The engine lacks a ``capability`` that was asked for."""


class SandboxError(WasmlabError):
    """The worker machinery failed; the guest is not to blame."""


class WorkerLost(SandboxError):
    """A worker vanished and left no outcome."""


class ClusterError(WasmlabError):
    """Control plane, nodes, pods."""


class NotReady(ClusterError, TimeoutError):
    """Something did not become ready before its deadline: ``events`` holds what the cluster said meanwhile."""


class BootstrapError(ClusterError):
    """A node could not join: its CSR was denied, expired or never approved."""


class BenchmarkError(WasmlabError):
    """A measurement cannot be made, or must not be pooled."""


class NotebookError(WasmlabError):
    """A notebook failed, or was given parameters it does not have."""
