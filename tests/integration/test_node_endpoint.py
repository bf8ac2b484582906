"""Who comes in at a node's endpoint, and what it shows, on a real control plane."""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.node import metricskit
from tests.node.endpointkit import Endpoint
from tests.node.endpointkit import console as console
from tests.node.endpointkit import endpoint as endpoint
from tests.node.lab import NodeLab, push, retire, until
from wasmlab.node.host.machine import default_address

pytestmark = pytest.mark.integration

REFUSED_BY_TLS = (ssl.SSLError, ConnectionResetError, BrokenPipeError, http.client.RemoteDisconnected)
PODS = "/pods"


@pytest.fixture(scope="module")
def lab(cluster: Any) -> Iterator[NodeLab]:
    # The API server's proxy does not go to loopback addresses; without any other the tests go there themselves.
    node = cluster.add_node("door", args=("--address", "auto", "--backoff-base-s", "1.0"))
    yield NodeLab(cluster, node)
    retire(cluster, node)


@pytest.fixture
def allow(lab: NodeLab, unique: Callable[[str], str]) -> Callable[..., None]:
    """Let a subject do something with nodes, and wait until the API server knows."""

    def allow(kind: str, name: str, verb: str, resource: str) -> None:
        role = unique("endpoint")
        rule = {"apiGroups": [""], "resources": [resource], "verbs": [verb]}
        group = "" if kind == "ServiceAccount" else "rbac.authorization.k8s.io"
        subject = {"kind": kind, "name": name, "apiGroup": group}
        if kind == "ServiceAccount":
            subject["namespace"] = "default"
        api = "rbac.authorization.k8s.io/v1"
        lab.cluster.apply(
            [
                {"apiVersion": api, "kind": "ClusterRole", "metadata": {"name": role}, "rules": [rule]},
                {
                    "apiVersion": api,
                    "kind": "ClusterRoleBinding",
                    "metadata": {"name": role},
                    "roleRef": {"kind": "ClusterRole", "name": role, "apiGroup": "rbac.authorization.k8s.io"},
                    "subjects": [subject],
                },
            ]
        )
        who = f"system:serviceaccount:default:{name}" if kind == "ServiceAccount" else name
        resource, _, subresource = resource.partition("/")
        asked = {"verb": verb, "resource": resource, "subresource": subresource, "name": lab.node.name}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": who, "groups": ["system:authenticated"], "resourceAttributes": asked},
        }
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        until(
            f"{who} may {verb} {resource}/{subresource}",
            lambda: json.loads(lab.cluster.rest.call("POST", path, body=review))["status"]["allowed"],
        )

    return allow


# ---- authentication ----


@pytest.mark.parametrize("path", ["/healthz", PODS, "/metrics", "/exec/default/p/c", "/nothing"])
def test_nobody_is_unauthorized(endpoint: Endpoint, path: str) -> None:
    assert endpoint.ask(path) == (401, "Unauthorized")


def test_a_token_that_nobody_issued_is_unauthorized(endpoint: Endpoint) -> None:
    assert endpoint.ask(PODS, token="made.up.token") == (401, "Unauthorized")


def test_a_certificate_of_another_authority_is_refused(endpoint: Endpoint, tmp_path: Path) -> None:
    from tests.node.membership.test_csr import issue
    from wasmlab.node.membership import csr

    key = csr.new_key()
    (tmp_path / "k").write_bytes(key)
    (tmp_path / "c").write_bytes(issue(key))
    # TLS 1.3 tells a client that its certificate is refused only when it reads.
    with pytest.raises(REFUSED_BY_TLS):
        endpoint.ask(PODS, certificate=(tmp_path / "c", tmp_path / "k"))


def test_a_servers_certificate_is_no_clients(endpoint: Endpoint, tmp_path: Path) -> None:
    wrong = endpoint.certificate(tmp_path, "system:admin", "system:masters", server=True)
    with pytest.raises(REFUSED_BY_TLS):
        endpoint.ask(PODS, certificate=wrong)


def test_the_api_server_comes_in(endpoint: Endpoint) -> None:
    mine = endpoint.api_server
    assert endpoint.ask("/healthz", certificate=mine) == (200, "ok")
    status, text = endpoint.ask("/healthz?verbose", certificate=mine)
    assert (status, text.splitlines()) == (
        200,
        ["[+]ping ok", "[+]syncloop ok", "[+]sandbox ok", "healthz check passed"],
    )
    assert endpoint.ask("/containerLogs/default/none/c", certificate=mine) == (
        404,
        'pod "none" does not exist\n',
    )
    assert endpoint.ask("/exec/default/none/c?output=1", certificate=mine) == (404, "pod does not exist\n")
    assert endpoint.ask("/logs/", certificate=mine)[0] == 405
    assert endpoint.ask("/portForward/default/none", certificate=mine, method="POST")[0] == 404


# ---- authorization ----


def test_any_certificate_of_the_authority_is_somebody_but_may_do_nothing(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    who = endpoint.certificate(tmp_path, "nobody-in-particular", "team")
    asked = "user=nobody-in-particular, verb=get, resource=nodes"
    assert endpoint.ask(PODS, certificate=who) == (
        403,
        f"Forbidden ({asked}, subresource(s)=[pods proxy])\n",
    )
    assert endpoint.ask("/metrics/resource", certificate=who) == (
        403,
        f"Forbidden ({asked}, subresource(s)=[metrics])\n",
    )
    assert endpoint.ask("/nothing/here", certificate=who)[0] == 403  # not even what is not there


def test_a_node_may_not_look_into_itself(endpoint: Endpoint, tmp_path: Path) -> None:
    status, text = endpoint.ask(PODS, certificate=endpoint.node_certificate(tmp_path))
    assert status == 403
    assert "user=system:node:door" in text


def test_fine_grained_rights_open_one_path_each(
    endpoint: Endpoint, allow: Callable[..., None], unique: Callable[[str], str], tmp_path: Path
) -> None:
    user = unique("viewer")
    allow("User", user, "get", "nodes/pods")
    allow("User", user, "get", "nodes/stats")
    who = endpoint.certificate(tmp_path, user)
    found = {
        path: endpoint.ask(path, certificate=who)[0]
        for path in (PODS, "/runningpods/", "/stats/summary", "/metrics", "/configz", "/healthz")
    }
    assert found == {
        PODS: 200,
        "/runningpods/": 200,
        "/stats/summary": 200,
        "/metrics": 403,
        "/configz": 403,
        "/healthz": 403,
    }


def test_reading_the_proxy_is_no_right_to_execute(
    endpoint: Endpoint, allow: Callable[..., None], unique: Callable[[str], str], tmp_path: Path
) -> None:
    user = unique("reader")
    allow("User", user, "get", "nodes/proxy")
    who = endpoint.certificate(tmp_path, user)
    assert endpoint.ask("/containerLogs/default/none/c", certificate=who)[0] == 404
    assert endpoint.ask("/configz", certificate=who)[0] == 200
    status, text = endpoint.ask("/exec/default/none/c?output=1", certificate=who)
    assert (status, text) == (
        403,
        f"Forbidden (user={user}, verb=create, resource=nodes, subresource(s)=[proxy])\n",
    )


def test_a_service_account_comes_in_with_its_token(
    lab: NodeLab, endpoint: Endpoint, allow: Callable[..., None], unique: Callable[[str], str]
) -> None:
    name = unique("scraper")
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": name, "namespace": "default"},
    }
    lab.cluster.apply(account)
    allow("ServiceAccount", name, "get", "nodes/metrics")
    token = lab.cluster.kubectl("create", "token", name).stdout.strip()
    status, text = endpoint.ask("/metrics", token=token)
    assert status == 200, text
    assert f'kubelet_node_name{{node="{lab.node.name}"}} 1' in text
    status, text = endpoint.ask(PODS, token=token)
    assert status == 403
    assert f"user=system:serviceaccount:default:{name}" in text


# ---- what the node itself may ----


def test_the_node_is_confined_to_itself_and_needs_no_more(
    lab: NodeLab, endpoint: Endpoint, tmp_path: Path
) -> None:
    """What the node authorizer and NodeRestriction refuse, the agent does not ask for."""
    mine = endpoint.node_certificate(tmp_path)

    def ask(method: str, path: str, body: Any = None) -> int:
        connection = http.client.HTTPSConnection(
            lab.cluster.server.removeprefix("https://"), context=endpoint.context(mine), timeout=20
        )
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        try:
            connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": kind})
            return connection.getresponse().status
        finally:
            connection.close()

    name = lab.node.name
    assert ask("GET", f"/api/v1/pods?fieldSelector=spec.nodeName%3D{name}") == 200
    assert ask("GET", "/api/v1/pods") == 403
    assert ask("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dother") == 403
    assert ask("GET", f"/api/v1/nodes/{name}") == 200
    assert ask("GET", "/api/v1/namespaces/default/secrets") == 403
    label = {"metadata": {"labels": {"node-restriction.kubernetes.io/x": "y"}}}
    assert ask("PATCH", f"/api/v1/nodes/{name}", label) == 403
    taints: dict[str, Any] = {"spec": {"taints": []}}
    assert ask("PATCH", f"/api/v1/nodes/{name}", taints) == 403
    refused = [line for line in lab.node.log.read_text().splitlines() if "orbidden" in line]
    assert [line for line in refused if "msg=forbidden" not in line] == []  # those are its own refusals


# ---- what it shows ----


def raw(lab: NodeLab, path: str) -> str:
    """What the API server's proxy gives an administrator."""
    if default_address() == "127.0.0.1":
        endpoint = Endpoint(lab.cluster, lab.node)
        return endpoint.ask(path, certificate=endpoint.api_server)[1]
    return lab.cluster.kubectl("get", "--raw", f"/api/v1/nodes/{lab.node.name}/proxy{path}").stdout


def metric(text: str, name: str, **labels: str) -> float:
    """The value of one sample; raises StopIteration if there is none."""
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    line = next(
        line
        for line in text.splitlines()
        if line.split("{")[0].split(" ")[0] == name and all(one in line for one in wanted)
    )
    return float(line.rpartition("}")[2].split()[0] if "}" in line else line.split()[1])


def test_what_runs_and_what_it_uses(lab: NodeLab, console: str, unique: Callable[[str], str]) -> None:
    name = unique("busy")
    lab.apply(name, console, container={"args": ["work:300", "out:done", "sleep:600"]})
    lab.running(name)
    until("it has worked", lambda: "done" in lab.cluster.logs(name))
    running = json.loads(raw(lab, "/runningpods/"))["items"]
    assert [c["name"] for p in running if p["metadata"]["name"] == name for c in p["spec"]["containers"]] == [
        name
    ]
    assert any(p["metadata"]["name"] == name for p in json.loads(raw(lab, PODS))["items"])

    text = raw(lab, "/metrics/resource")
    where = {"container": name, "pod": name, "namespace": "default"}
    first = metric(text, "container_cpu_usage_seconds_total", **where)
    assert 0.05 < first < 60  # three hundred million turns; how fast they go is the machine's business
    memory = metric(text, "container_memory_working_set_bytes", **where)
    assert 500_000 < memory < 300 << 20
    assert metric(text, "node_memory_working_set_bytes") > memory
    assert metric(text, "node_cpu_usage_seconds_total") > first
    assert metric(text, "pod_cpu_usage_seconds_total", pod=name) == first
    assert metric(text, "resource_scrape_error") == 0

    # What ran beside it and has ended counts on.
    done = lab.cluster.kubectl("exec", name, "--", "work:300", "out:spun")
    assert done.stdout == "spun\n"
    until(
        "the figures include what was executed",
        lambda: (
            metric(raw(lab, "/metrics/resource"), "container_cpu_usage_seconds_total", **where) > first + 0.05
        ),
    )

    summary = json.loads(raw(lab, "/stats/summary"))
    assert summary["node"]["nodeName"] == lab.node.name
    assert [c["name"] for c in summary["node"]["systemContainers"]] == ["kubelet", "runtime"]
    assert all(c["memory"]["rssBytes"] > 1 << 20 for c in summary["node"]["systemContainers"])
    mine = next(p for p in summary["pods"] if p["podRef"]["name"] == name)
    container = mine["containers"][0]
    assert mine["memory"]["workingSetBytes"] == container["memory"]["workingSetBytes"]
    assert container["cpu"]["usageCoreNanoSeconds"] > (first + 0.05) * 1e9
    assert container["logs"]["usedBytes"] > 0
    assert mine["process_stats"]["process_count"] == 1
    lab.cluster.kubectl("delete", "pod", name, "--grace-period=0", "--force")


def test_kubectl_top(
    lab: NodeLab, endpoint: Endpoint, console: str, unique: Callable[[str], str], tmp_path: Path
) -> None:
    """By what metrics-server reads; a module that has done next to nothing must not be missing."""
    idle = unique("idle")
    lab.apply(idle, console, container={"args": ["sleep:600"]})
    lab.running(idle)

    def scrape() -> str:
        return endpoint.ask("/metrics/resource", certificate=endpoint.api_server)[1]

    def top(*what: str) -> list[str] | None:
        argv = lab.cluster.kubectl_argv("top", *what)
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        name = lab.node.name if what[0] == "node" else idle
        # Until the API server has found the new group, and there is something to compare with.
        return next((line.split() for line in done.stdout.splitlines() if line.split()[:1] == [name]), None)

    with metricskit.aggregated(lab.cluster, metricskit.MetricsApi(lab.node.name, scrape), tmp_path):
        node = until("kubectl tops the node", lambda: top("node"))
        name, cpu, _, memory, percent = node
        assert name == lab.node.name
        assert int(cpu.removesuffix("m")) >= 0
        assert int(memory.removesuffix("Mi")) > 100
        assert 0 <= int(percent.removesuffix("%")) <= 100
        name, cpu, memory = until("kubectl tops the pod", lambda: top("pod"))
        assert int(cpu.removesuffix("m")) < 2000
        assert 0 < int(memory.removesuffix("Mi")) < 300
    lab.cluster.kubectl("delete", "pod", idle, "--grace-period=0", "--force")


@pytest.mark.parametrize("limits", [{}, {"memory": "160Mi"}])
def test_memory_that_a_module_takes_is_seen(
    lab: NodeLab, limits: dict[str, str], unique: Callable[[str], str]
) -> None:
    name = unique("fat")  # with a limit it has a control group of its own, where that can be had
    image = push(lab.cluster, "probe")
    lab.apply(name, image, container={"args": ["eat:48", "sleep:600"], "resources": {"limits": limits}})
    where = {"container": name, "pod": name, "namespace": "default"}

    def working_set() -> float:
        try:
            return metric(raw(lab, "/metrics/resource"), "container_memory_working_set_bytes", **where)
        except StopIteration:
            return 0.0

    until("the working set has grown", lambda: working_set() > 48 << 20)
    assert working_set() < 300 << 20
    pods = json.loads(raw(lab, "/stats/summary"))["pods"]
    memory = next(p for p in pods if p["podRef"]["name"] == name)["containers"][0]["memory"]
    assert ("availableBytes" in memory) == bool(limits)
    lab.cluster.kubectl("delete", "pod", name, "--grace-period=0", "--force")


def test_the_nodes_own_metrics(
    lab: NodeLab, endpoint: Endpoint, console: str, unique: Callable[[str], str]
) -> None:
    lab.run(unique("quick"), console)
    endpoint.ask("/no-such-path-9", certificate=endpoint.api_server)
    text = raw(lab, "/metrics")
    assert metric(text, "process_resident_memory_bytes") > 10 << 20
    assert metric(text, "kubelet_certificate_manager_client_ttl_seconds") > 600
    assert metric(text, "kubelet_certificate_manager_server_ttl_seconds") > 600
    assert metric(text, "kubelet_http_requests_total", path="other", code="404") >= 1
    # Told when the API server has taken the last status, which may be a moment after a client has seen it.
    until(
        "its phases",
        lambda: 'wasmlab_pod_phase_seconds_count{engine="wasmtime",phase="started"}' in raw(lab, "/metrics"),
    )
    assert "no-such-path-9" not in text  # or strangers could fill this process' memory
    for line in text.splitlines():
        assert line.startswith("# ") or line.rsplit(" ", 1)[1], line


def test_configz_tells_no_secrets(lab: NodeLab) -> None:
    config = json.loads(raw(lab, "/configz"))["kubeletconfig"]
    assert config["readOnlyPort"] == 0
    assert config["authentication"]["anonymous"] == {"enabled": False}
    assert "PRIVATE" not in json.dumps(config)


# ---- logs ----


def test_log_options_as_the_kubelet_has_them(
    lab: NodeLab, endpoint: Endpoint, console: str, unique: Callable[[str], str]
) -> None:
    name = unique("logs")
    args = ["out:one", "err:two", "out:three", "sleep:1", "out:four", "out:five"]
    lab.run(name, console, container={"args": args})

    def logs(query: str) -> tuple[int, str]:
        return endpoint.ask(f"/containerLogs/default/{name}/{name}?{query}", certificate=endpoint.api_server)

    def lines(query: str) -> list[str]:
        status, text = logs(query)
        assert status == 200, text
        return text.splitlines()

    # The streams are two pipes: what each says is in order, which is read first is not said.
    everything = lines("")
    assert [line for line in everything if line != "two"] == ["one", "three", "four", "five"]
    assert everything.count("two") == 1
    assert lines("follow=true") == everything  # of a container that has ended: to its end
    assert lines("tailLines=2") == everything[-2:]
    assert lines("tail=2") == everything[-2:]
    assert lines("tailLines=0") == []
    assert lines("tail=all") == everything
    assert lines("stream=Stderr") == ["two"]
    assert lines("stream=Stdout&limitBytes=6") == ["one", "th"]
    stamped = lines("timestamps=true")
    assert [line.split(" ", 1)[1] for line in stamped] == everything
    moments = [line.split(" ", 1)[0] for line in stamped]
    assert moments == sorted(moments)
    # Lines from that very moment on; sent with its nine decimals, as kubectl does.
    assert lines(f"sinceTime={moments[3]}") == everything[3:]
    assert lines(f"sinceTime={moments[3]}&tailLines=1&timestamps=true") == [stamped[4]]
    assert lines("sinceTime=2001-01-01T00:00:00Z") == everything
    assert lines("sinceSeconds=3600") == everything

    for wrong in (
        "tailLines=-1",
        "tailLines=x",
        "limitBytes=0",
        "sinceSeconds=0",
        "sinceTime=yesterday",
        "sinceSeconds=1&sinceTime=2001-01-01T00:00:00Z",
        "stream=Both",
        "stream=Stdout&tailLines=1",
    ):
        assert logs(wrong)[0] == 422, wrong
    assert logs("previous=true") == (
        400,
        f'previous terminated container "{name}" in pod "{name}" not found',
    )
    other = endpoint.ask(f"/containerLogs/default/{name}/other", certificate=endpoint.api_server)
    assert other == (404, f'container "other" not found in pod "{name}"\n')


def test_logs_of_the_attempt_before(
    lab: NodeLab, endpoint: Endpoint, console: str, unique: Callable[[str], str]
) -> None:
    name = unique("again")
    lab.apply(
        name,
        console,
        spec={"restartPolicy": "OnFailure"},
        container={"args": ["env:ATTEMPT", "sleep:0.2", "fail:1"]},
    )
    until("it was restarted", lambda: lab.container(name).get("restartCount", 0) >= 1)
    path = f"/containerLogs/default/{name}/{name}?previous=true"
    assert endpoint.ask(path, certificate=endpoint.api_server) == (200, "(none)\n")
    lab.cluster.kubectl("delete", "pod", name, "--grace-period=0", "--force")
