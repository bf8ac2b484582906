"""Pods on a real control plane: what they print, how they end, and what the API says of it."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.node.lab import HELLO, NodeLab, push, retire, terminated, until
from tests.oci.fake_registry import FakeRegistry, TokenService
from wasmlab.cluster import manifests
from wasmlab.oci import Client

pytestmark = pytest.mark.integration

Name = Callable[[str], str]
HELLO_OUTPUT = "hello from stdout!\nhello from stderr!\nArgs are: []\n"


@pytest.fixture(scope="module")
def lab(cluster: Any) -> Iterator[NodeLab]:
    node = cluster.add_node("pods", args=("--backoff-base-s", "1.0"))
    yield NodeLab(cluster, node)
    retire(cluster, node)


@pytest.fixture(scope="module")
def images(cluster: Any) -> dict[str, str]:
    names = (
        "hello",
        "exit",
        "sleep",
        "env",
        "loop",
        "eatmem",
        "trap",
        "probe",
        "spam",
        "readdir",
        "writefile",
    )
    return {name: push(cluster, name) for name in names}


# ---- the article ----


def test_the_articles_pod(lab: NodeLab, images: dict[str, str], unique: Name) -> None:
    name = unique("article")
    pod = manifests.article_pod(name, images["hello"])
    pod["metadata"]["annotations"] = {"wasmlab.dev/restart-semantics": "krustlet"}
    pod["spec"]["nodeSelector"] = {"kubernetes.io/hostname": lab.node.name}
    lab.cluster.apply(pod)
    status = lab.cluster.wait_pod(name)["status"]
    assert (status["phase"], status["reason"], status["message"]) == ("Succeeded", "Completed", "Completed")
    assert status["qosClass"] == "BestEffort"
    end = status["containerStatuses"][0]["state"]["terminated"]
    assert {k: v for k, v in end.items() if not k.endswith("At")} == {
        "exitCode": 0,
        "message": "Module run completed",
    }
    assert lab.cluster.kubectl("logs", "-f", name).stdout == HELLO_OUTPUT
    assert "ExitCode:0" in lab.cluster.kubectl("get", "pod", name).stdout


@pytest.mark.parametrize("engine", ["wasmtime", "wasmer", "wasmtime-runner"])
def test_every_engine(lab: NodeLab, images: dict[str, str], unique: Name, engine: str) -> None:
    name = unique(engine)
    pod = lab.run(name, images["hello"], engine=engine, timeout_s=60)
    assert pod["status"]["phase"] == "Succeeded"
    end = terminated(pod)
    assert (end["exitCode"], end["reason"]) == (0, "Completed")
    assert sorted(lab.cluster.logs(name).splitlines()) == sorted(HELLO_OUTPUT.splitlines())
    lines = (lab.node.dir / "spans.jsonl").read_text().splitlines()
    spans = next(json.loads(line) for line in lines if f'"{name}"' in line)
    assert spans["engine"] == engine
    assert [s[0] for s in spans["spans"]] == [
        *("seen", "pulled", "compiled", "started", "first_byte", "exited", "status_written")
    ]
    ends = [s[2] for s in spans["spans"]]
    assert ends == sorted(ends)


def test_events_of_a_good_pod(lab: NodeLab, images: dict[str, str], unique: Name) -> None:
    name = unique("events")
    lab.run(name, images["hello"])
    lab.event(name, "Started")
    reasons = [reason for reason, _ in lab.events(name)]
    assert {"Pulled", "Created", "Started"} <= set(reasons)
    assert "Failed" not in reasons


# ---- arguments and environment ----


def test_args_and_environment(lab: NodeLab, images: dict[str, str], unique: Name) -> None:
    name = unique("env")
    cluster = lab.cluster
    cluster.apply(
        [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"color": "red"}},
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": name},
                "stringData": {"pw": "hunter2"},
            },
        ]
    )
    env = [
        {"name": "WHO", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "WHERE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": name, "key": "color"}}},
        {"name": "PW", "valueFrom": {"secretKeyRef": {"name": name, "key": "pw"}}},
        {"name": "BOTH", "value": "$(WHO)/$(COLOR)"},
    ]
    pod = lab.run(name, images["env"], container={"env": env, "args": ["-x", "$(COLOR)", "$$(COLOR)"]})
    assert pod["status"]["phase"] == "Succeeded"
    text = cluster.logs(name)
    for line in (
        f"WHO={name}",
        "WHERE=default",
        f"IP={pod['status']['podIP']}",
        "COLOR=red",
        "PW=hunter2",
        f"BOTH={name}/red",
    ):
        assert line in text, text
    for word in ("-x", "red", "$(COLOR)"):
        assert word in text, text


def test_command_replaces_argv0(lab: NodeLab, images: dict[str, str], unique: Name) -> None:
    name = unique("command")
    lab.run(name, images["env"], container={"command": ["/bin/thing", "-v"], "args": ["last"]})
    text = lab.cluster.logs(name)
    assert "/bin/thing" in text
    assert "last" in text


def test_a_missing_config_map_is_waited_for(lab: NodeLab, images: dict[str, str], unique: Name) -> None:
    name = unique("late")
    env = [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": name, "key": "k"}}}]
    lab.apply(name, images["env"], container={"env": env})
    message = lab.waiting(name, "CreateContainerConfigError")
    assert f'configmap "{name}" not found' in message
    lab.cluster.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "here"}}
    )
    assert lab.cluster.wait_pod(name)["status"]["phase"] == "Succeeded"
    assert "X=here" in lab.cluster.logs(name)


@pytest.mark.parametrize(
    ("container", "spec", "said"),
    [
        ({"workingDir": "/tmp"}, {}, "workingDir"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(
    lab: NodeLab, images: dict[str, str], unique: Name, container: dict, spec: dict, said: str
) -> None:
    name = unique("refused")
    lab.apply(name, images["hello"], container=container, spec=spec)
    assert said in lab.waiting(name, "CreateContainerConfigError")
    assert said in lab.event(name, "Failed")
    lab.cluster.delete(lab.pod(name, images["hello"]))
    lab.cluster.wait_gone(name)


def test_an_unknown_engine_is_refused(lab: NodeLab, images: dict[str, str], unique: Name) -> None:
    name = unique("engine")
    lab.apply(name, images["hello"], engine="v8")
    message = lab.waiting(name, "CreateContainerConfigError")
    assert "v8" in message
    assert "wasmtime, wasmer" in message


def test_the_service_account_token_is_no_obstacle(lab: NodeLab, images: dict[str, str], unique: Name) -> None:
    name = unique("token")
    pod = lab.pod(name, images["hello"])
    del pod["spec"]["automountServiceAccountToken"]  # as a pod that somebody wrote by hand
    made = lab.cluster.apply(pod)[0]
    assert any(v["name"].startswith("kube-api-access") for v in made["spec"]["volumes"])
    assert lab.cluster.wait_pod(name)["status"]["phase"] == "Succeeded"


def test_an_empty_dir_is_shared_by_containers(lab: NodeLab, images: dict[str, str], unique: Name) -> None:
    name = unique("volume")
    mount = [{"name": "scratch", "mountPath": "/data"}]
    pod = lab.pod(name, images["readdir"], container={"args": ["/data"], "volumeMounts": mount})
    pod["spec"]["volumes"] = [{"name": "scratch", "emptyDir": {}}]
    pod["spec"]["initContainers"] = [
        {
            "name": "first",
            "image": images["writefile"],
            "args": ["/data/note", "hello"],
            "volumeMounts": mount,
        }
    ]
    lab.cluster.apply(pod)
    done = lab.cluster.wait_pod(name)
    assert done["status"]["phase"] == "Succeeded", done["status"]
    assert done["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 0
    assert "note" in lab.cluster.logs(name, container=name)


# ---- ends ----


@pytest.mark.parametrize("code", [1, 125, 126, 255])
def test_exit_codes_arrive(lab: NodeLab, images: dict[str, str], unique: Name, code: int) -> None:
    pod = lab.run(unique("exit"), images["exit"], args=[str(code)])
    assert pod["status"]["phase"] == "Failed"
    assert (terminated(pod)["exitCode"], terminated(pod)["reason"]) == (code, "Error")


def test_a_trap_is_told_apart_from_an_exit(lab: NodeLab, images: dict[str, str], unique: Name) -> None:
    pod = lab.run(unique("trap"), images["trap"])
    assert pod["status"]["phase"] == "Failed"
    end = terminated(pod)
    assert end["reason"] == "Error"
    assert end["exitCode"] == 134
    assert "unreachable" in end["message"]


def test_a_guest_that_eats_memory_meets_its_limit(lab: NodeLab, images: dict[str, str], unique: Name) -> None:
    name = unique("eatmem")
    pod = lab.run(name, images["eatmem"], container={"resources": {"limits": {"memory": "32Mi"}}})
    grown = [int(w) for w in lab.cluster.logs(name).split() if w.isdigit()]
    assert grown, lab.cluster.logs(name)
    assert max(grown) <= 32
    assert pod["status"]["phase"] in ("Succeeded", "Failed")


def test_a_guest_that_loops_meets_its_deadline(lab: NodeLab, images: dict[str, str], unique: Name) -> None:
    name = unique("loop")
    pod = lab.run(name, images["loop"], spec={"activeDeadlineSeconds": 1})
    assert (pod["status"]["phase"], pod["status"]["reason"]) == ("Failed", "DeadlineExceeded")
    assert terminated(pod)["exitCode"] in (137, 143)


def test_a_guest_that_loops_can_be_deleted(lab: NodeLab, images: dict[str, str], unique: Name) -> None:
    name = unique("loop")
    lab.apply(name, images["loop"])
    lab.running(name)
    lab.cluster.delete(lab.pod(name, images["loop"]))
    lab.cluster.wait_gone(name, timeout_s=60)
    assert lab.event(name, "Killing") == f"Stopping container {name}"


def test_a_running_pod_is_ready_and_its_deletion_leaves_nothing(
    lab: NodeLab, images: dict[str, str], unique: Name
) -> None:
    name = unique("sleep")
    lab.apply(name, images["sleep"], args=["60"])
    lab.running(name)
    pod = lab.get(name)
    conditions = {c["type"]: c["status"] for c in pod["status"]["conditions"]}
    assert conditions["Ready"] == conditions["ContainersReady"] == "True"
    uid = pod["metadata"]["uid"]
    assert (lab.node.dir / "pods" / uid).exists()
    lab.cluster.delete(pod)
    lab.cluster.wait_gone(name)
    until("files are gone", lambda: not (lab.node.dir / "pods" / uid).exists())
    until("records are gone", lambda: not list((lab.node.dir / "sandbox" / "runs").glob(f"{uid}.*")))


def test_a_deleted_pod_says_how_it_ended(lab: NodeLab, images: dict[str, str], unique: Name) -> None:
    """The last status comes before the object goes: whoever watches sees Failed with 143."""
    name = unique("watched")
    pod = lab.pod(name, images["sleep"], args=["60"])
    pod["metadata"]["finalizers"] = ["wasmlab.dev/test"]
    lab.cluster.apply(pod)
    lab.running(name)
    lab.cluster.delete(pod)
    done = lab.cluster.wait_pod(name)
    assert done["status"]["phase"] == "Failed"
    assert terminated(done)["exitCode"] == 143
    lab.cluster.rest.call(
        "PATCH",
        f"/api/v1/namespaces/default/pods/{name}",
        body={"metadata": {"finalizers": None}},
        content_type="application/merge-patch+json",
    )
    lab.cluster.wait_gone(name)


def test_a_pod_removed_by_force_is_ended(lab: NodeLab, images: dict[str, str], unique: Name) -> None:
    name = unique("forced")
    lab.apply(name, images["loop"])
    lab.running(name)
    uid = lab.get(name)["metadata"]["uid"]
    lab.cluster.delete(lab.get(name), grace_s=0)
    lab.cluster.wait_gone(name)
    until("its files are gone", lambda: not (lab.node.dir / "pods" / uid).exists())
    until("its records are gone", lambda: not list((lab.node.dir / "sandbox" / "runs").glob(f"{uid}.*")))


def test_the_name_of_a_deleted_pod_can_be_used_at_once(
    lab: NodeLab, images: dict[str, str], unique: Name
) -> None:
    name = unique("again")
    lab.apply(name, images["loop"])
    lab.running(name)
    lab.cluster.delete(lab.get(name), grace_s=0)
    lab.cluster.wait_gone(name)
    assert lab.run(name, images["hello"])["status"]["phase"] == "Succeeded"
    assert lab.cluster.logs(name) == HELLO_OUTPUT


def test_a_link_does_not_lead_a_mount_out_of_its_volume(
    lab: NodeLab, images: dict[str, str], unique: Name
) -> None:
    name = unique("link")
    mount = [{"name": "scratch", "mountPath": "/data"}]
    inner = [{"name": "scratch", "mountPath": "/data", "subPath": "way"}]
    pod = lab.pod(name, images["readdir"], container={"args": ["/data"], "volumeMounts": inner})
    pod["spec"]["volumes"] = [{"name": "scratch", "emptyDir": {}}]
    pod["spec"]["initContainers"] = [
        {"name": "first", "image": images["probe"], "args": ["wait:/data/go=x"], "volumeMounts": mount}
    ]
    made = lab.cluster.apply(pod)[0]
    volume = lab.node.dir / "pods" / made["metadata"]["uid"] / "volumes" / "scratch"
    until("the volume", volume.is_dir)
    (volume / "way").symlink_to("/etc")
    (volume / "go").write_text("x")
    assert "symbolic link" in lab.waiting(name, "CreateContainerConfigError")


def test_restart_policy_on_failure_backs_off(lab: NodeLab, images: dict[str, str], unique: Name) -> None:
    name = unique("crash")
    lab.apply(name, images["exit"], args=["3"], restart_policy="OnFailure")

    def crashed() -> Any:
        found = lab.container(name)
        waiting = found.get("state", {}).get("waiting", {})
        return found if waiting.get("reason") == "CrashLoopBackOff" else None

    status = until("it backs off", crashed)
    wait_s = 2 ** (status["restartCount"] - 1)  # 1 s the first time, but who looks late sees another
    assert f"back-off {wait_s}s restarting failed container" in status["state"]["waiting"]["message"]
    assert status["lastState"]["terminated"]["exitCode"] == 3
    assert lab.get(name)["status"]["phase"] == "Running"
    until("a third attempt", lambda: lab.container(name).get("restartCount", 0) >= 2)
    assert "Back-off restarting failed container" in lab.event(name, "BackOff")
    assert lab.cluster.kubectl("logs", name, "--previous", check=False).returncode == 0


def test_restart_policy_always_restarts_what_succeeded(
    lab: NodeLab, images: dict[str, str], unique: Name
) -> None:
    name = unique("always")
    lab.apply(name, images["hello"], restart_policy="Always")
    lab.waiting(name, "CrashLoopBackOff")
    assert lab.container(name)["lastState"]["terminated"]["exitCode"] == 0
    lab.cluster.delete(lab.pod(name, images["hello"]))
    lab.cluster.wait_gone(name)


def test_several_containers(lab: NodeLab, images: dict[str, str], unique: Name) -> None:
    name = unique("several")
    pod = lab.pod(name, images["exit"], args=["0"])
    pod["spec"]["containers"].append({"name": "other", "image": images["exit"], "args": ["7"]})
    lab.cluster.apply(pod)
    done = lab.cluster.wait_pod(name)
    assert done["status"]["phase"] == "Failed"
    codes = {s["name"]: s["state"]["terminated"]["exitCode"] for s in done["status"]["containerStatuses"]}
    assert codes == {name: 0, "other": 7}


def test_a_failed_init_container_keeps_the_others_from_starting(
    lab: NodeLab, images: dict[str, str], unique: Name
) -> None:
    name = unique("init")
    pod = lab.pod(name, images["hello"])
    pod["spec"]["initContainers"] = [{"name": "first", "image": images["exit"], "args": ["4"]}]
    lab.cluster.apply(pod)
    done = lab.cluster.wait_pod(name)
    assert done["status"]["phase"] == "Failed"
    assert "terminated" not in done["status"]["containerStatuses"][0]["state"]
    assert done["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "PodInitializing"
    assert "Init:Error" in lab.cluster.kubectl("get", "pod", name).stdout


# ---- images ----


def test_image_pull_back_off_then_recovery(lab: NodeLab, unique: Name) -> None:
    name = unique("later")
    image = f"{lab.cluster.registry}/{name}:v1"
    lab.apply(name, image)
    message = lab.waiting(name, "ImagePullBackOff")
    assert f'Back-off pulling image "{image}"' in message
    assert "not found" in message
    assert "Failed to pull image" in lab.event(name, "Failed")
    push(lab.cluster, "hello", repository=name)
    assert lab.cluster.wait_pod(name)["status"]["phase"] == "Succeeded"


def test_pull_policy_never(lab: NodeLab, unique: Name) -> None:
    name = unique("never")
    image = push(lab.cluster, "hello", repository=name)
    lab.apply(name, image, image_pull_policy="Never")
    assert "is not present with pull policy of Never" in lab.waiting(name, "ErrImageNeverPull")


def test_pull_policy_always_sees_a_new_module(lab: NodeLab, unique: Name) -> None:
    name = unique("moving")
    image = push(lab.cluster, "hello", repository=name)
    assert lab.run(name, image, image_pull_policy="Always")["status"]["phase"] == "Succeeded"
    push(lab.cluster, "trap", repository=name)
    assert lab.run(unique("moved"), image, image_pull_policy="Always")["status"]["phase"] == "Failed"
    # What is present is used without asking, and it is the new one.
    assert lab.run(unique("present"), image, image_pull_policy="IfNotPresent")["status"]["phase"] == "Failed"


def test_an_invalid_image_name(lab: NodeLab, unique: Name) -> None:
    name = unique("invalid")
    lab.apply(name, "Not/A:Name:at:all")
    lab.waiting(name, "InvalidImageName")


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    registry = FakeRegistry().start()
    yield registry
    registry.stop()


def test_a_container_image_is_refused_once_and_quietly(
    lab: NodeLab, fake: FakeRegistry, unique: Name
) -> None:
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
    ).encode()
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": "sha256:" + "0" * 64,
                "size": len(config),
            },
            "layers": [
                {
                    "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                    "digest": "sha256:" + "1" * 64,
                    "size": 10,
                }
            ],
        }
    ).encode()
    fake.put("pause", "3", manifest, kind, config)
    name = unique("daemon")
    lab.apply(name, f"{fake.host}/pause:3")
    message = lab.waiting(name, "ImagePullBackOff")
    assert "is a container image, not a WASM artifact" in message
    asked = fake.count("GET", "/manifests/")
    time.sleep(3)  # three times the first back-off of this node
    assert fake.count("GET", "/manifests/") == asked, "it asks again and again for what cannot work"

    def told() -> int:
        return sum(r == "Failed" and "container image" in m for r, m in lab.events(name))

    until("it is told", told)
    assert told() == 1


def test_a_registry_that_lies_about_a_digest(
    lab: NodeLab, fake: FakeRegistry, unique: Name, tmp_path: Path
) -> None:
    image = f"{fake.host}/liar:v1"
    module = tmp_path / "own.wasm"  # hello with a custom section: a digest that the node cannot have yet
    module.write_bytes(HELLO.read_bytes() + b"\0\5\4liar")
    Client().push(module, image)
    layer = next(d for d, data in fake.blobs.items() if len(data) > 100)
    fake.blobs[layer] = fake.blobs[layer][:-1] + b"R"
    name = unique("liar")
    lab.apply(name, image)
    message = lab.waiting(name, "ImagePullBackOff")
    assert "sha256:" in message
    assert not lab.container(name)["imageID"]
    fake.blobs[layer] = module.read_bytes()
    assert lab.cluster.wait_pod(name)["status"]["phase"] == "Succeeded"


def test_harbors_token_service_and_a_pull_secret(lab: NodeLab, fake: FakeRegistry, unique: Name) -> None:
    """Krustlet's issue 624: both `token` and an empty `access_token`."""
    image = f"{fake.host}/team/hello:v1"
    Client().push(HELLO, image)
    service = TokenService(fake, shape=lambda token: {"token": token, "access_token": "", "expires_in": 300})
    fake.before = service
    name = unique("harbor")
    lab.apply(name, image, spec={"imagePullSecrets": [{"name": name}]})
    assert "UNAUTHORIZED" in lab.waiting(name, "ImagePullBackOff") or service.asked
    assert f"image pull secrets ({name})" in lab.event(name, "FailedToRetrieveImagePullSecret")
    auth = base64.b64encode(f"{service.user}:{service.password}".encode()).decode()
    lab.cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name},
            "type": "kubernetes.io/dockerconfigjson",
            "stringData": {".dockerconfigjson": json.dumps({"auths": {fake.host: {"auth": auth}}})},
        }
    )
    assert lab.cluster.wait_pod(name)["status"]["phase"] == "Succeeded"


def test_a_module_that_is_no_module(lab: NodeLab, unique: Name, tmp_path: Path) -> None:
    path = tmp_path / "bad.wasm"
    path.write_bytes(b"\0asm\x01\0\0\0" + b"\x01\x7f\x00")
    name = unique("bad")
    image = f"{lab.cluster.registry}/{name}:v1"
    Client().push(path, image)
    pod = lab.run(name, image)
    assert pod["status"]["phase"] == "Failed"
    assert terminated(pod)["reason"] == "StartError"
    assert terminated(pod)["message"]


# ---- logs ----


def test_logs_follow_until_the_end(lab: NodeLab, images: dict[str, str], unique: Name) -> None:
    name = unique("ticker")
    volume = lab.led(name, images["probe"], "env:BEGIN", "wait:/v/go=x", "env:END")
    lab.running(name)
    child = subprocess.Popen(
        lab.cluster.kubectl_argv("logs", "-f", name),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    first = child.stdout.readline()
    assert first == "env:BEGIN > (none)\n"
    assert child.poll() is None, "follow ended before the module did"
    (volume / "go").write_text("x")
    assert child.stdout.read() == "wait:/v/go > x\nenv:END > (none)\n"
    assert child.wait(timeout=60) == 0


def test_log_options(lab: NodeLab, images: dict[str, str], unique: Name) -> None:
    name = unique("spam")
    lab.run(name, images["spam"], args=["50"])
    cluster = lab.cluster
    whole = cluster.logs(name)
    assert len(whole.splitlines()) == 50
    assert cluster.logs(name, tail_lines=3) == "".join(whole.splitlines(keepends=True)[-3:])
    assert cluster.logs(name, limit_bytes=10) == whole[:10]
    stamped = cluster.logs(name, timestamps=True, tail_lines=1)
    assert stamped[:4] == time.strftime("%Y")
    assert stamped.split(" ", 1)[1] == whole.splitlines(keepends=True)[-1]
    assert cluster.logs(name, since_s=3600) == whole
    time.sleep(1.1)
    assert cluster.logs(name, since_s=1) == ""


def test_logs_of_a_container_that_has_not_started(lab: NodeLab, unique: Name) -> None:
    name = unique("nolog")
    lab.apply(name, f"{lab.cluster.registry}/{name}:none")
    lab.waiting(name, "ImagePullBackOff")
    done = lab.cluster.kubectl("logs", name, check=False)
    assert done.returncode != 0
    assert "waiting to start: trying and failing to pull image" in done.stderr
