"""How a cluster is reached: kubeconfig, clients that share one connection pool, kubectl."""

from __future__ import annotations

import base64
import subprocess
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from wasmlab.cluster.rest import Rest
from wasmlab.errors import ClusterError, ProcessError

if TYPE_CHECKING:
    from kubernetes import client

    from wasmlab.cluster.guest import Guest

_KUBECTL_TIMEOUT_S = 120.0


class Access:
    """Any cluster that has a kubeconfig.

    Attributes
    ----------
    kubeconfig : Path
        Credentials of an administrator.
    context : str or None
        A context in it; None is its current one.
    foreign : bool
        Whether somebody else runs the cluster: then the lab works as a `wasmlab.cluster.guest.Guest`.
    """

    foreign = False

    def __init__(self, kubeconfig: Path, context: str | None = None) -> None:
        self.kubeconfig = kubeconfig
        self.context = context

    @property
    def server(self) -> str:
        """URL of the API server."""
        return str(self._kubeconfig_entry("clusters", "cluster")["server"])

    @property
    def ca(self) -> bytes:
        """Certificate authority of the API server, PEM."""
        entry = self._kubeconfig_entry("clusters", "cluster")
        if data := entry.get("certificate-authority-data"):
            return base64.b64decode(data)
        if path := entry.get("certificate-authority"):
            return (self.kubeconfig.parent / path).read_bytes()
        return b""

    @cached_property
    def api(self) -> client.ApiClient:
        """A client of the API server; the typed APIs below share it."""
        from kubernetes import client, config

        self._context_entry()  # says more clearly what is missing than the client does
        configuration = client.Configuration()
        try:
            config.load_kube_config(
                config_file=str(self.kubeconfig), context=self.context, client_configuration=configuration
            )
        except config.ConfigException as error:
            raise ClusterError(
                f"the kubeconfig {self.kubeconfig} cannot be used: {error}", remedy="check the file"
            ) from error
        if urlsplit(configuration.host).hostname in ("127.0.0.1", "localhost", "::1"):
            # The client takes HTTPS_PROXY from the environment, and no proxy can reach our own loopback.
            configuration.proxy = None
        return client.ApiClient(configuration)

    @cached_property
    def rest(self) -> Rest:
        """The same API server as raw dictionaries."""
        return Rest(self.api)

    @cached_property
    def guest(self) -> Guest | None:
        """What this run of the lab makes in a cluster that is not ours; None in one that is."""
        from wasmlab.cluster.guest import Guest

        if not self.foreign:
            return None
        guest = Guest(self.rest, self._context_entry().get("namespace", ""))
        self._leave_at_exit()
        return guest

    def _leave_at_exit(self) -> None:
        """See to it that what the guest makes is removed."""

    @property
    def namespace(self) -> str:
        """Where the lab's objects go: ``default``, or in somebody else's cluster the guest's namespace."""
        return self.guest.namespace if self.guest else "default"

    @property
    def core(self) -> client.CoreV1Api:
        """Pods, Nodes, Events, Secrets ..."""
        from kubernetes import client

        return client.CoreV1Api(self.api)

    @property
    def apps(self) -> client.AppsV1Api:
        """Deployments, DaemonSets ..."""
        from kubernetes import client

        return client.AppsV1Api(self.api)

    @property
    def certificates(self) -> client.CertificatesV1Api:
        """CertificateSigningRequests."""
        from kubernetes import client

        return client.CertificatesV1Api(self.api)

    def kubectl(
        self, *args: str, input: str | None = None, check: bool = True, timeout_s: float = _KUBECTL_TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl, of the version of the embedded control plane, against this cluster.

        Parameters
        ----------
        *args : str
            Its words, without ``kubectl``.
        input : str, optional
            What it reads from stdin.
        check : bool
            Raise if it fails.
        timeout_s : float
            The deadline, in seconds.

        Returns
        -------
        subprocess.CompletedProcess
            With ``stdout`` and ``stderr`` as text.

        Raises
        ------
        ProcessError
            If it fails and `check` is true, or runs longer than `timeout_s`.
        """
        argv = self.kubectl_argv(*args)
        try:
            done = subprocess.run(argv, input=input, capture_output=True, text=True, timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise ProcessError(
                f"`kubectl {' '.join(args)}` still ran after {timeout_s:g} s", argv=argv
            ) from error
        if check and done.returncode:
            raise ProcessError(
                f"`kubectl {' '.join(args)}` failed",
                argv=argv,
                returncode=done.returncode,
                log_tail=done.stderr,
            )
        return done

    def kubectl_argv(self, *args: str) -> list[str]:
        """Return the command line with which `kubectl` runs `args`."""
        from wasmlab.cluster import binary

        argv = [str(binary.ensure()), "kubectl", "--kubeconfig", str(self.kubeconfig)]
        if self.context:
            argv += ["--context", self.context]
        if self.guest and self.guest.current:
            argv += ["--namespace", self.guest.current]
        return [*argv, *args]

    def _forget_client(self) -> None:
        """The next request makes a new client: the credentials of a new start are new."""
        self.__dict__.pop("guest", None)
        self.__dict__.pop("rest", None)
        if (api := self.__dict__.pop("api", None)) is not None:
            api.close()

    def _kubeconfig_entry(self, section: str, kind: str) -> dict[str, Any]:
        name = self._context_entry()[kind]
        return self._named(self._kubeconfig(), section, kind, name)

    def _context_entry(self) -> dict[str, Any]:
        config = self._kubeconfig()
        return self._named(config, "contexts", "context", self.context or config.get("current-context"))

    def _kubeconfig(self) -> dict[str, Any]:
        import yaml

        try:
            config = yaml.safe_load(self.kubeconfig.read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ClusterError(
                f"the kubeconfig {self.kubeconfig} cannot be read: {error}", remedy="check the file"
            ) from error
        if not isinstance(config, dict):
            raise ClusterError(f"{self.kubeconfig} is no kubeconfig", remedy="check the file")
        return config

    def _named(self, config: dict[str, Any], section: str, kind: str, name: Any) -> dict[str, Any]:
        for entry in config.get(section) or ():
            if entry.get("name") == name:
                found: dict[str, Any] = entry.get(kind) or {}
                return found
        raise ClusterError(
            f"the kubeconfig {self.kubeconfig} has no {kind} {name!r}",
            remedy=f"`kubectl config view --kubeconfig {self.kubeconfig}` shows what it has",
        )
