"""The life of a pod on a real control plane: init containers and sidecars, probes, hooks, deadlines, messages, drain.

All pods are made at once; each test then waits for its own. What they wait for is a file in a directory that the pod
and the test share.
"""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.node.healthkit import Health, serving
from tests.node.lab import NodeLab, push, retire, terminated, until
from wasmlab import engines

pytestmark = pytest.mark.integration

Json = dict[str, Any]
FOREVER = "sleep:600"


class Answers(http.server.BaseHTTPRequestHandler):
    """What a module that listens would be to a probe."""

    status = 500
    asked: list[str] = []  # noqa: RUF012 (one server)

    def do_GET(self) -> None:
        self.asked.append(f"{self.path} {self.headers['X-Asks']} {self.headers['User-Agent']}")
        self.send_response(type(self).status)
        self.end_headers()
        self.wfile.write(b"secret")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def answers() -> Iterator[int]:
    # At every address: the pods' may be another than loopback.
    server = http.server.ThreadingHTTPServer(("", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def silence() -> Iterator[int]:
    """A port that is taken, and that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("", 0))
        yield sock.getsockname()[1]


@pytest.fixture(scope="module")
def health() -> Iterator[tuple[Health, int]]:
    """What a module that serves gRPC would be to a probe."""
    health = Health()
    with serving(health, "0.0.0.0") as port:
        yield health, port


def ask(*args: str, **more: Any) -> Json:
    """A probe that runs the module with these arguments."""
    return {"exec": {"command": list(args)}, "periodSeconds": 1, "timeoutSeconds": 30, **more}


def hook(*args: str) -> Json:
    return {"exec": {"command": list(args)}}


class World:
    """Every pod of this module, each with a directory of its own that it sees as /v."""

    def __init__(self, lab: NodeLab, image: str, root: Path) -> None:
        self.lab, self.image, self.root = lab, image, root
        self.made: list[Json] = []

    def container(self, *args: str, name: str = "main", **more: Any) -> Json:
        mounts = [{"name": "v", "mountPath": "/v"}]
        return {"name": name, "image": self.image, "args": list(args), "volumeMounts": mounts, **more}

    def pod(self, name: str, *containers: Json, **spec: Any) -> None:
        (self.root / name).mkdir()
        made = self.lab.pod(name, self.image)
        made["spec"].update(
            {
                "containers": list(containers),
                "volumes": [{"name": "v", "hostPath": {"path": str(self.root / name)}}],
                # Most of them end at once by SIGTERM; on a busy machine that and a hook take their time.
                "terminationGracePeriodSeconds": 30,
                **spec,
            }
        )
        self.made.append(made)

    def put(self, name: str, file: str, text: str = "x") -> None:
        aside = self.root / name / f".{file}"
        aside.write_text(text)
        aside.rename(self.root / name / file)

    def text(self, name: str, file: str) -> str:
        path = self.root / name / file
        return path.read_text() if path.exists() else ""

    def status(self, name: str, container: str = "main") -> Json:
        status = self.lab.get(name)["status"]
        found = [*status.get("containerStatuses", []), *status.get("initContainerStatuses", [])]
        return next((one for one in found if one["name"] == container), {})

    def conditions(self, name: str) -> Json:
        return {c["type"]: c["status"] for c in self.lab.get(name)["status"].get("conditions", [])}

    def ready(self, name: str, status: str) -> None:
        until(
            f"{name} Ready is {status}",
            lambda: self.conditions(name).get("Ready") == status == self.conditions(name)["ContainersReady"],
        )

    def told(self, name: str, reason: str, message: str) -> None:
        until(f"{name} is told {reason}", lambda: (reason, message) in self.lab.events(name))

    def over(self, name: str) -> Json:
        return self.lab.cluster.wait_pod(name, timeout_s=60)

    def delete(self, name: str) -> Json:
        """Delete it, and return how it ended."""
        self.lab.cluster.rest.call(
            "PATCH",
            f"/api/v1/namespaces/default/pods/{name}",
            body={"metadata": {"finalizers": ["wasmlab.dev/test"]}},
            content_type="application/merge-patch+json",
        )
        self.lab.cluster.delete(self.lab.get(name))
        ended = self.over(name)
        self.lab.cluster.rest.call(
            "PATCH",
            f"/api/v1/namespaces/default/pods/{name}",
            body={"metadata": {"finalizers": None}},
            content_type="application/merge-patch+json",
        )
        self.lab.cluster.wait_gone(name, timeout_s=60)
        return ended


@pytest.fixture(scope="module")
def lab(cluster: Any) -> Iterator[NodeLab]:
    # What the probes ask listens on loopback.
    node = cluster.add_node("life", args=("--backoff-base-s", "1.0", "--pod-address", "127.0.0.1"))
    yield NodeLab(cluster, node)
    retire(cluster, node)


@pytest.fixture(scope="module")
def world(
    lab: NodeLab,
    answers: int,
    silence: int,
    health: tuple[Health, int],
    tmp_path_factory: pytest.TempPathFactory,
) -> World:
    w = World(lab, push(lab.cluster, "probe"), tmp_path_factory.mktemp("life"))
    c = w.container
    w.pod(
        "init-order",
        c("cat:/v/log"),
        initContainers=[c(f"add:/v/log={i}", name=f"i{i}") for i in range(3)],
    )
    w.pod(
        "init-crash",
        c("say:done"),
        initContainers=[c("say:first", name="first"), c("wait:/v/begin=x", "need:/v/go", name="second")],
        restartPolicy="OnFailure",
    )
    sidecar = {"restartPolicy": "Always", "startupProbe": ask("need:/v/up", failureThreshold=1000)}
    w.pod(
        "sidecars",
        c("wait:/v/go=x", "cat:/v/log"),
        initContainers=[
            c("add:/v/log=a", "wait:/v/early=x", "write:/v/up=x", FOREVER, name="a", **sidecar),
            c("add:/v/log=b", name="b"),
            c("add:/v/log=c", FOREVER, name="c", restartPolicy="Always"),
        ],
    )
    w.pod(
        "probed",
        c(
            *("wait:/v/begin=x", "write:/v/up=x", FOREVER),
            startupProbe=ask("need:/v/up", failureThreshold=1000),
            readinessProbe=ask("need:/v/ready", failureThreshold=1),
            livenessProbe=ask("need:/v/up", failureThreshold=2),
        ),
        restartPolicy="Always",
    )
    w.pod(
        "http",
        c(
            FOREVER,
            ports=[{"name": "web", "containerPort": answers}],
            readinessProbe={
                "httpGet": {
                    "port": "web",
                    "path": "/ready",
                    "httpHeaders": [{"name": "X-Asks", "value": "yes"}],
                },
                "periodSeconds": 1,
                "failureThreshold": 1,
                "timeoutSeconds": 30,
            },
        ),
    )
    often = {"periodSeconds": 1, "timeoutSeconds": 30}
    w.pod(
        "tcp",
        c(FOREVER, readinessProbe={"tcpSocket": {"port": silence}, **often}),
        c(FOREVER, name="up", readinessProbe={"tcpSocket": {"port": answers}, **often}),
    )
    w.pod(
        "grpc",
        c(
            FOREVER,
            readinessProbe={
                "grpc": {"port": health[1], "service": "app"},
                "failureThreshold": 1,
                **often,
            },
        ),
    )
    w.pod(
        "never-starts",
        c(FOREVER, startupProbe=ask("need:/v/up", failureThreshold=1, terminationGracePeriodSeconds=20)),
    )
    w.pod(
        "post-start",
        c(
            FOREVER,
            lifecycle={"postStart": hook("wait:/v/go=x", "write:/v/hooked=x"), "preStop": hook("fail:1")},
        ),
    )
    w.pod("post-start-fails", c(FOREVER, lifecycle={"postStart": hook("fail:3")}))
    w.pod(
        "pre-stop",
        # It ends by itself, with a code of its own, because its hook has told it to.
        c("wait:/v/stop=x", "fail:7", lifecycle={"preStop": hook("write:/v/stop=x", "sleep:600")}),
        terminationGracePeriodSeconds=60,
    )
    w.pod(
        "pre-stop-long",
        c(FOREVER, lifecycle={"preStop": {"sleep": {"seconds": 600}}}),
        terminationGracePeriodSeconds=600,
    )
    w.pod("deadline", c(FOREVER))
    for engine in ("wasmtime", "wasmer"):
        w.pod(f"message-{engine}", c("write:/dev/termination-log=the end", "fail:4"))
        w.made[-1]["metadata"]["annotations"] = {"wasmlab.dev/engine": engine}
    w.pod(
        "message-fallback",
        c("say:hello", "fail:5", terminationMessagePolicy="FallbackToLogsOnError"),
        c(
            *("write:/said/what=of its own", "fail:5"),
            name="own",
            terminationMessagePath="/said/what",
            terminationMessagePolicy="FallbackToLogsOnError",
        ),
        c("write:/v/msg=on a volume", name="volume", terminationMessagePath="/v/msg"),
    )
    w.pod(
        "rules",
        c(
            *("wait:/v/begin=x", "need:/v/go"),
            restartPolicy="Never",
            restartPolicyRules=[
                {"action": "Restart", "exitCodes": {"operator": "In", "values": [1]}},
            ],
        ),
        c("fail:9", name="other", restartPolicy="Never"),
    )
    w.pod(
        "policies",
        c("fail:1", restartPolicy="OnFailure"),
        c("say:done", name="once"),
        c(FOREVER, name="goes-on"),
        restartPolicy="OnFailure",
    )
    w.pod("many", *(c("say:x", f"fail:{i % 2}", name=f"c{i}") for i in range(12)))
    w.pod(
        "all-again",
        c(
            FOREVER,
            restartPolicy="Never",
            restartPolicyRules=[
                {"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [1]}}
            ],
        ),
    )
    w.pod("debugged", c(FOREVER))
    w.pod("typo", c("say:x", image=f"{lab.cluster.registry}/nothing:v1"))
    # For the agent that goes and comes back.
    w.pod(
        "init-survives",
        c("cat:/v/log"),
        initContainers=[
            c("add:/v/log=1", name="first"),
            c("add:/v/log=2", "wait:/v/go=x", name="second"),
        ],
    )
    w.pod("crashes", c("wait:/v/begin=x", "fail:1"), restartPolicy="Always")
    w.pod(
        "stays-ready",
        c(FOREVER, startupProbe=ask("need:/v/up"), readinessProbe=ask("need:/v/up", periodSeconds=60)),
        initContainers=[c("add:/v/log=s", FOREVER, name="side", restartPolicy="Always")],
    )
    w.put("stays-ready", "up")
    lab.cluster.apply(w.made)
    return w


# ---- init containers ----


def test_init_containers_run_in_order(world: World) -> None:
    pod = world.over("init-order")
    assert pod["status"]["phase"] == "Succeeded"
    assert world.lab.cluster.logs("init-order") == "cat:/v/log > 012\n"
    assert world.conditions("init-order")["Initialized"] == "True"
    assert [s["state"]["terminated"]["reason"] for s in pod["status"]["initContainerStatuses"]] == (
        ["Completed"] * 3
    )


def test_an_init_container_that_fails_is_tried_again(world: World) -> None:
    world.put("init-crash", "begin")
    until(
        "it backs off",
        lambda: "Init:CrashLoopBackOff" in world.lab.cluster.kubectl("get", "pod", "init-crash").stdout,
    )
    assert world.conditions("init-crash")["Initialized"] == "False"
    assert world.status("init-crash")["state"]["waiting"]["reason"] == "PodInitializing"
    assert world.lab.get("init-crash")["status"]["phase"] == "Pending"
    world.put("init-crash", "go")
    pod = world.over("init-crash")
    assert pod["status"]["phase"] == "Succeeded"
    assert world.status("init-crash", "first")["restartCount"] == 0
    assert world.status("init-crash", "second")["restartCount"] >= 1


def test_sidecars_start_in_order_and_do_not_hold_the_pod(world: World) -> None:
    until("the first runs", lambda: "running" in world.status("sidecars", "a").get("state", {}))
    # Its startup probe holds back all that come after.
    assert not world.status("sidecars", "a")["started"]
    assert "waiting" in world.status("sidecars", "b")["state"]
    shown = world.lab.cluster.kubectl("get", "pod", "sidecars").stdout
    assert "Init:0/3" in shown, shown
    world.put("sidecars", "early")
    until("all run", lambda: world.lab.get("sidecars")["status"]["phase"] == "Running")
    assert world.status("sidecars", "a")["started"]
    until("all ready", lambda: "3/3" in world.lab.cluster.kubectl("get", "pod", "sidecars").stdout)
    world.put("sidecars", "go")
    pod = world.over("sidecars")
    assert pod["status"]["phase"] == "Succeeded"
    assert "cat:/v/log > abc" in world.lab.cluster.logs("sidecars", container="main")
    for name in ("a", "c"):
        assert world.status("sidecars", name)["state"]["terminated"]["exitCode"] == 143
        assert world.status("sidecars", name)["restartCount"] == 0


# ---- probes ----


def test_startup_readiness_and_liveness(world: World) -> None:
    until("it runs", lambda: "running" in world.status("probed").get("state", {}))
    assert (world.status("probed")["started"], world.status("probed")["ready"]) == (False, False)
    world.put("probed", "begin")
    until("it has started", lambda: world.status("probed").get("started"))
    world.ready("probed", "False")
    world.told("probed", "Unhealthy", "Readiness probe failed: no /v/ready\n")
    world.put("probed", "ready")
    world.ready("probed", "True")
    (world.root / "probed" / "ready").unlink()
    world.ready("probed", "False")
    # And now it dies, as far as its probe can tell.
    world.put("probed", "begin", "no more")
    (world.root / "probed" / "up").unlink()
    until("it is restarted", lambda: world.status("probed").get("restartCount") == 1)
    message = world.lab.event("probed", "Killing")
    assert message == "Container main failed liveness probe, will be restarted"
    until("it runs again", lambda: "running" in world.status("probed")["state"])
    assert not world.status("probed")["started"], "a new run has to prove itself anew"
    assert world.status("probed")["lastState"]["terminated"]["exitCode"] == 143
    world.told("probed", "Unhealthy", "Liveness probe failed: no /v/up\n")


def test_http_get(world: World) -> None:
    world.ready("http", "False")
    message = world.lab.event("http", "Unhealthy")
    assert message == "Readiness probe failed: HTTP probe failed with statuscode: 500"
    Answers.status = 200
    world.ready("http", "True")
    assert any(line.startswith("/ready yes kube-probe/") for line in Answers.asked)
    Answers.status = 503
    world.ready("http", "False")


def test_tcp_socket(world: World, silence: int) -> None:
    message = world.lab.event("tcp", "Unhealthy")
    address = world.lab.get("tcp")["status"]["podIP"]
    assert message == f"Readiness probe failed: dial tcp {address}:{silence}: connect: connection refused"
    until("the other is ready", lambda: world.status("tcp", "up").get("ready"))
    assert not world.status("tcp")["ready"]
    assert world.conditions("tcp")["Ready"] == "False"


def test_grpc(world: World, health: tuple[Health, int]) -> None:
    state, _ = health
    world.told("grpc", "Unhealthy", "Readiness probe failed: error: health rpc probe failed: no app")
    state.states["app"] = "SERVING"
    world.ready("grpc", "True")
    state.states["app"] = "NOT_SERVING"
    world.ready("grpc", "False")
    said = 'Readiness probe failed: service unhealthy (responded with "NOT_SERVING")'
    world.told("grpc", "Unhealthy", said)


def test_a_container_that_never_starts_is_ended(world: World) -> None:
    pod = world.over("never-starts")
    assert pod["status"]["phase"] == "Failed"
    assert terminated(pod)["exitCode"] == 143
    assert world.lab.event("never-starts", "Killing") == "Container main failed startup probe"
    assert "Startup probe failed: no /v/up" in world.lab.event("never-starts", "Unhealthy")


# ---- hooks ----


def test_post_start_comes_before_running(world: World) -> None:
    log = world.lab.node.dir / "pods" / world.lab.get("post-start")["metadata"]["uid"] / "main.0.log"
    until("its module runs", log.exists)
    assert "waiting" in world.status("post-start").get("state", {"waiting": {}})
    assert world.lab.get("post-start")["status"]["phase"] == "Pending"
    world.put("post-start", "go")
    until("it runs", lambda: "running" in world.status("post-start").get("state", {}))
    assert world.text("post-start", "hooked") == "x"
    world.ready("post-start", "True")
    ended = world.delete("post-start")
    assert terminated(ended)["exitCode"] == 143
    assert world.lab.event("post-start", "FailedPreStopHook") == "PreStopHook failed"


def test_a_failed_post_start_ends_the_container(world: World) -> None:
    pod = world.over("post-start-fails")
    assert pod["status"]["phase"] == "Failed"
    assert terminated(pod)["exitCode"] == 143
    assert world.lab.event("post-start-fails", "FailedPostStartHook") == "PostStartHook failed"
    assert world.lab.event("post-start-fails", "Killing") == "FailedPostStartHook"


def test_pre_stop_lets_a_module_end_by_itself(world: World) -> None:
    world.lab.running("pre-stop")
    ended = world.delete("pre-stop")
    assert terminated(ended)["exitCode"] == 7
    assert "FailedPreStopHook" not in [reason for reason, _ in world.lab.events("pre-stop")]


def test_a_grace_period_can_be_shortened(world: World) -> None:
    """The hook takes ten minutes, and so would the deletion."""
    world.lab.running("pre-stop-long")
    pod = world.lab.get("pre-stop-long")
    world.lab.cluster.delete(pod)
    world.lab.event("pre-stop-long", "Killing")
    world.lab.cluster.delete(pod, grace_s=1)
    world.lab.cluster.wait_gone("pre-stop-long", timeout_s=60)


# ---- ends ----


def test_a_deadline_given_to_a_running_pod(world: World) -> None:
    world.lab.running("deadline")
    world.lab.cluster.rest.call(
        "PATCH",
        "/api/v1/namespaces/default/pods/deadline",
        body={"spec": {"activeDeadlineSeconds": 1}},
        content_type="application/merge-patch+json",
    )
    pod = world.over("deadline")
    status = pod["status"]
    assert status["observedGeneration"] == pod["metadata"]["generation"] == 2
    assert (status["phase"], status["reason"]) == ("Failed", "DeadlineExceeded")
    assert status["message"] == "Pod was active on the node longer than the specified deadline"


def test_termination_messages(world: World) -> None:
    for engine in engines.names():
        if engines.get(engine).capabilities.directories:  # else it cannot write the file
            assert terminated(world.over(f"message-{engine}"))["message"] == "the end"
    statuses = world.over("message-fallback")["status"]["containerStatuses"]
    said = {s["name"]: s["state"]["terminated"].get("message") for s in statuses}
    assert said["main"].startswith("say:hello")
    assert said["own"] == "of its own"
    assert said["volume"] == "on a volume"


def test_restart_rules_and_policies_of_containers(world: World) -> None:
    world.put("rules", "begin")
    until("it restarts", lambda: world.status("rules").get("restartCount", 0) >= 1)
    until("the other ended", lambda: "terminated" in world.status("rules", "other")["state"])
    assert world.status("rules", "other")["state"]["terminated"]["exitCode"] == 9
    assert world.status("rules", "other")["restartCount"] == 0
    world.put("rules", "go")
    pod = world.over("rules")
    assert pod["status"]["phase"] == "Failed", "the other one has failed"
    assert world.status("rules")["state"]["terminated"]["exitCode"] == 0
    until("OnFailure restarts", lambda: world.status("policies").get("restartCount", 0) >= 1)
    until("the second ended", lambda: "terminated" in world.status("policies", "once")["state"])
    assert world.status("policies", "once")["state"]["terminated"]["exitCode"] == 0
    assert world.status("policies", "once")["restartCount"] == 0
    until("the third runs", lambda: "running" in world.status("policies", "goes-on")["state"])
    assert world.lab.get("policies")["status"]["phase"] == "Running"


def test_an_image_can_be_put_right(world: World) -> None:
    world.lab.waiting("typo", "ImagePullBackOff")
    world.lab.cluster.kubectl("set", "image", "pod/typo", f"main={world.image}")
    pod = world.over("typo")
    assert pod["status"]["phase"] == "Succeeded"
    assert terminated(pod)["exitCode"] == 0
    assert pod["status"]["containerStatuses"][0]["image"] == world.image
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0


def test_kubectl_debug_adds_another_module(world: World) -> None:
    world.lab.running("debugged")
    kubectl = world.lab.cluster.kubectl
    kubectl(
        *("debug", "debugged", f"--image={world.image}", "--container=dbg", "--profile=general"),
        *("--", "probe", "env:NOTHING"),
    )

    def ended() -> Any:
        [one] = world.lab.get("debugged")["status"].get("ephemeralContainerStatuses") or [{}]
        return one.get("state", {}).get("terminated")

    assert until("it has ended", ended)["exitCode"] == 0
    assert kubectl("logs", "debugged", "-c", "dbg").stdout == "env:NOTHING > (none)\n"
    assert world.lab.get("debugged")["status"]["phase"] == "Running"


def test_many_containers(world: World) -> None:
    statuses = world.over("many")["status"]["containerStatuses"]
    assert [s["state"]["terminated"]["exitCode"] for s in statuses] == [0, 1] * 6


def test_a_rule_that_this_node_does_not_declare_is_kept_away(world: World) -> None:
    # Until the node is Ready, the scheduler has another reason.
    until(
        "the scheduler's reason",
        lambda: any(
            reason == "FailedScheduling" and "didn't match Pod's required features" in message
            for reason, message in world.lab.events("all-again")
        ),
    )


# ---- the agent goes and comes back ----


def test_a_new_agent_repeats_nothing_and_forgets_nothing(world: World) -> None:
    lab = world.lab
    until("an init container runs", lambda: world.text("init-survives", "log") == "12")
    world.put("crashes", "begin")  # only now: the longer it crashes, the longer it waits
    until("it has crashed twice", lambda: world.status("crashes").get("restartCount", 0) >= 2)
    world.ready("stays-ready", "True")
    until("its sidecar wrote", lambda: world.text("stays-ready", "log") == "s")
    crashed = world.status("crashes")["restartCount"]
    lab.node.kill()
    lab.node.start()
    lab.node.wait_ready(60)
    lab.apply("after", world.image, container={"args": ["say:after"]})
    assert lab.cluster.wait_pod("after", timeout_s=60)["status"]["phase"] == "Succeeded"
    assert world.conditions("stays-ready")["Ready"] == "True"
    assert world.text("stays-ready", "log") == "s", "its sidecar was begun again"
    world.put("init-survives", "go")
    assert world.over("init-survives")["status"]["phase"] == "Succeeded"
    assert world.text("init-survives", "log") == "12", "an init container was run again"
    until("it goes on crashing", lambda: world.status("crashes").get("restartCount", 0) > crashed)
    waits = lab.waiting("crashes", "CrashLoopBackOff")
    assert not waits.startswith("back-off 1s"), "the count began anew"


# ---- cordon and drain: the last test, for it leaves nothing ----


def test_cordon_and_drain(world: World) -> None:
    lab = world.lab
    daemon = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "everywhere"},
        "spec": {
            "selector": {"matchLabels": {"app": "everywhere"}},
            "template": {
                "metadata": {"labels": {"app": "everywhere"}},
                "spec": {
                    "nodeSelector": {"kubernetes.io/hostname": lab.node.name},
                    "tolerations": [{"operator": "Exists"}],
                    "containers": [{"name": "d", "image": world.image, "args": [FOREVER]}],
                },
            },
        },
    }
    lab.cluster.apply(daemon)

    def daemons() -> list[Json]:
        items = lab.cluster.rest.get("/api/v1/namespaces/default/pods?labelSelector=app%3Deverywhere")[
            "items"
        ]
        return [p for p in items if p["status"].get("phase") == "Running"]

    [before] = until("the daemon runs", daemons)
    lab.cluster.kubectl(
        *("drain", lab.node.name, "--ignore-daemonsets", "--delete-emptydir-data", "--force"),
        *("--timeout=100s", "--grace-period=1"),
    )
    [after] = daemons()
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    selector = f"spec.nodeName%3D{lab.node.name}"
    left = lab.cluster.rest.get(f"/api/v1/namespaces/default/pods?fieldSelector={selector}")["items"]
    assert [p["metadata"]["name"] for p in left] == [after["metadata"]["name"]]
    lab.apply("too-late", world.image, container={"args": ["say:hello"]})
    until("it cannot be placed", lambda: "unschedulable" in lab.event("too-late", "FailedScheduling"))
    lab.cluster.kubectl("uncordon", lab.node.name)
    assert lab.cluster.wait_pod("too-late", timeout_s=60)["status"]["phase"] == "Succeeded"
    lab.cluster.delete(daemon)
    until("the daemon is gone", lambda: not daemons())
