"""What a pod is given on a real control plane: variables, volumes, its share of the machine."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.node.lab import HELLO, NodeLab, push, retire, terminated, until
from tests.oci.fake_registry import FakeRegistry, TokenService
from wasmlab.errors import ClusterError
from wasmlab.node.inputs import filesystems
from wasmlab.oci import Client
from wasmlab.paths import unmount_below

pytestmark = pytest.mark.integration

Name = Callable[[str], str]


@pytest.fixture(scope="module")
def lab(cluster: Any) -> Iterator[NodeLab]:
    args = ("--backoff-base-s", "1.0", "--volume-sync-s", "0.5", "--volume-watch-s", "0.5")
    node = cluster.add_node("inputs", args=args)
    yield NodeLab(cluster, node)
    retire(cluster, node)


@pytest.fixture(scope="module")
def probe(cluster: Any) -> str:
    return push(cluster, "probe")


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def secret(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}


def said(lab: NodeLab, name: str) -> dict[str, str]:
    """Operation -> what the probe said of it."""
    result = {}
    try:
        text = lab.cluster.logs(name)
    except ClusterError:  # it has not started yet
        return {}
    for line in text.splitlines():
        for mark in (" > ", " ! "):
            operation, found, text = line.partition(mark)
            if found:
                result[operation] = text if mark == " > " else f"! {text}"
                break
    return result


def field(path: str) -> dict[str, Any]:
    return {"valueFrom": {"fieldRef": {"fieldPath": path}}}


# ---- variables ----


def test_every_source_of_variables(lab: NodeLab, probe: str, unique: Name) -> None:
    name = unique("vars")
    service = unique("svc")
    lab.cluster.apply(
        [
            config_map(name, color="red", size="7"),
            secret(name, pw="hunter2"),
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": service},
                "spec": {"ports": [{"port": 81, "name": "web"}]},
            },
        ]
    )
    variables = {
        "NODE": field("spec.nodeName"),
        "ACCOUNT": field("spec.serviceAccountName"),
        "UID": field("metadata.uid"),
        "HOST": field("status.hostIP"),
        "IPS": field("status.podIPs"),
        "LABEL": field("metadata.labels['app.example/x']"),
        "NOTE": field("metadata.annotations['note']"),
        "MEM": {"valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
        "CPU": {"valueFrom": {"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1m"}}},
        "DISK": {"valueFrom": {"resourceFieldRef": {"resource": "limits.ephemeral-storage"}}},
        "PW": {"valueFrom": {"secretKeyRef": {"name": name, "key": "pw"}}},
        "NONE": {"valueFrom": {"configMapKeyRef": {"name": "none", "key": "k", "optional": True}}},
        "URL": {"value": "https://$(KUBERNETES_SERVICE_HOST):$(KUBERNETES_SERVICE_PORT)/$(P_color)$(NOT)"},
    }
    upper = service.replace("-", "_").upper()

    # The node hears of the Service by its watch, some moment after the API server took it.
    def heard() -> bool:
        first = unique("linked")
        lab.run(first, probe, args=[f"env:{upper}_SERVICE_HOST"])
        return said(lab, first)[f"env:{upper}_SERVICE_HOST"] != "(none)"

    until("the node has heard of the Service", heard)
    asked = [*variables, "P_color", "P_size", f"{upper}_SERVICE_PORT_WEB", f"{upper}_PORT_81_TCP_PROTO"]
    pod = lab.pod(
        name,
        probe,
        args=[*(f"env:{one}" for one in asked), "env:$(LABEL)$(MEM)"],
        container={
            "env": [{"name": key, **value} for key, value in variables.items()],
            "envFrom": [
                {"prefix": "P_", "configMapRef": {"name": name}},
                {"configMapRef": {"name": "none", "optional": True}},
            ],
            "resources": {"limits": {"memory": "64Mi"}, "requests": {"cpu": "150m", "memory": "64Mi"}},
        },
    )
    pod["metadata"]["labels"] = {"app.example/x": "front"}
    pod["metadata"]["annotations"] = {"note": "to self"}
    lab.cluster.apply(pod)
    done = lab.cluster.wait_pod(name, timeout_s=60)
    got = {key.removeprefix("env:"): value for key, value in said(lab, name).items()}
    assert done["status"]["phase"] == "Succeeded"
    assert got["NODE"] == "inputs"
    assert got["ACCOUNT"] == "default"
    assert got["UID"] == done["metadata"]["uid"]
    assert got["HOST"] == done["status"]["hostIP"] == done["status"]["hostIPs"][0]["ip"]
    assert got["IPS"] == done["status"]["podIP"] == done["status"]["podIPs"][0]["ip"]
    assert (got["LABEL"], got["NOTE"]) == ("front", "to self")
    assert (got["MEM"], got["CPU"]) == ("64", "150")
    assert int(got["DISK"]) > 1 << 20
    assert (got["PW"], got["NONE"]) == ("hunter2", "(none)")
    assert (got["P_color"], got["P_size"]) == ("red", "7")
    host = lab.cluster.rest.get("/api/v1/namespaces/default/services/kubernetes")["spec"]["clusterIP"]
    assert got["URL"] == f"https://{host}:443/red$(NOT)"
    assert got[f"{upper}_SERVICE_PORT_WEB"] == "81"
    assert got[f"{upper}_PORT_81_TCP_PROTO"] == "tcp"
    assert done["status"]["qosClass"] == "Burstable"


# ---- volumes ----


def test_volumes_that_the_api_fills_and_how_they_follow(
    lab: NodeLab, probe: str, unique: Name, tmp_path: Path
) -> None:
    name = unique("vols")
    rest = lab.cluster.rest
    lab.cluster.apply([config_map(name, k="one", conf="a=1"), secret(name, pw="hunter2")])
    host = tmp_path / "host"
    host.mkdir()
    (host / "f").write_text("of the host")
    volumes = [
        {"name": "cm", "configMap": {"name": name, "items": [{"key": "k", "path": "dir/k", "mode": 0o440}]}},
        {"name": "sec", "secret": {"secretName": name, "defaultMode": 0o644}},
        {
            "name": "all",
            "projected": {
                "sources": [
                    {"configMap": {"name": name, "items": [{"key": "conf", "path": "conf"}]}},
                    {
                        "serviceAccountToken": {
                            "path": "token",
                            "audience": "someone",
                            "expirationSeconds": 600,
                        }
                    },
                ]
            },
        },
        {
            "name": "down",
            "downwardAPI": {
                "items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}],
            },
        },
        {"name": "scratch", "emptyDir": {}},
        {"name": "host", "hostPath": {"path": str(host), "type": "Directory"}},
        {"name": "file", "hostPath": {"path": str(host / "f"), "type": "File"}},
        {"name": "made", "hostPath": {"path": str(tmp_path / "made/here"), "type": "DirectoryOrCreate"}},
        {"name": "none", "configMap": {"name": "none", "optional": True}},
    ]
    mounts = [
        {"name": "cm", "mountPath": "/cm"},
        {"name": "sec", "mountPath": "/sec"},
        {"name": "all", "mountPath": "/all"},
        {"name": "down", "mountPath": "/down"},
        {"name": "scratch", "mountPath": "/logs", "subPathExpr": "$(POD)/logs"},
        {"name": "scratch", "mountPath": "/scratch"},
        {"name": "host", "mountPath": "/host", "readOnly": True},
        {"name": "all", "mountPath": "/etc/app.conf", "subPath": "conf"},
        {"name": "none", "mountPath": "/none"},
        {"name": "file", "mountPath": "/one/f"},
        {"name": "made", "mountPath": "/made"},
    ]
    token = "/var/run/secrets/kubernetes.io/serviceaccount"
    args = [
        *("cat:/cm/dir/k", "cat:/sec/pw", "cat:/all/conf", "cat:/etc/app.conf", "ls:/none", "cat:/host/f"),
        *("cat:/down/labels", f"cat:{token}/namespace", f"cat:{token}/token", f"cat:{token}/ca.crt"),
        *(
            "write:/one/f=changed",
            "write:/made/x=1",
            "write:/logs/l=1",
            "ls:/scratch",
            "write:/host/new=1",
            "write:/sec/pw=1",
            "write:/cm/x=1",
        ),
        *("wait:/cm/dir/k=two", 'wait:/down/labels=app="b"', "cat:/etc/app.conf", "sleep:600"),
    ]
    pod = lab.pod(
        name,
        probe,
        args=args,
        container={"volumeMounts": mounts, "env": [{"name": "POD", **field("metadata.name")}]},
        spec={"volumes": volumes, "automountServiceAccountToken": True},
    )
    pod["metadata"]["labels"] = {"app": "a"}
    uid = lab.cluster.apply(pod)[0]["metadata"]["uid"]
    until("the first look", lambda: "write:/cm/x" in said(lab, name))
    files = lab.node.dir / "pods" / uid / "volumes"
    assert stat.S_IMODE((files / "sec" / "pw").stat().st_mode) == 0o600
    assert stat.S_IMODE((files / "cm" / "dir" / "k").stat().st_mode) == 0o440
    assert stat.S_IMODE(files.parent.stat().st_mode) == 0o700
    assert os.readlink(files / "sec" / "pw") == "..data/pw"
    lab.cluster.apply(config_map(name, k="two", conf="a=2"))
    patch = {"metadata": {"labels": {"app": "b"}}}
    path = f"/api/v1/namespaces/default/pods/{name}"
    rest.call("PATCH", path, body=patch, content_type="application/merge-patch+json")
    until("it has seen both", lambda: "wait:/down/labels" in said(lab, name))
    got = said(lab, name)
    assert (got["cat:/cm/dir/k"], got["cat:/sec/pw"], got["cat:/all/conf"]) == ("one", "hunter2", "a=1")
    assert all(one.startswith("..") for one in got["ls:/none"].split())
    assert (got["cat:/host/f"], got["cat:/down/labels"]) == ("of the host", 'app="a"')
    assert got["ls:/scratch"] == name
    assert got["write:/logs/l"] == "done"
    assert (files / "scratch" / name / "logs" / "l").read_text() == "1"
    for refused in ("write:/host/new", "write:/sec/pw", "write:/cm/x"):
        assert got[refused].startswith("! "), refused
    assert list(host.iterdir()) == [host / "f"]
    assert (host / "f").read_text() == "changed"  # it is the file itself, where it may be written
    assert (tmp_path / "made/here/x").read_text() == "1"
    assert got["wait:/cm/dir/k"] == "two"
    assert got["wait:/down/labels"] == 'app="b"'
    assert got["cat:/etc/app.conf"] == "a=1"  # a subPath does not follow
    # The account's token is a real one, for this pod.
    assert got[f"cat:{token}/namespace"] == "default"
    assert got[f"cat:{token}/ca.crt"].startswith("-----BEGIN")
    review = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": got[f"cat:{token}/token"]},
    }
    answer = rest.call("POST", "/apis/authentication.k8s.io/v1/tokenreviews", body=review)
    user = json.loads(answer)["status"]["user"]
    assert user["username"] == "system:serviceaccount:default:default"
    assert user["extra"]["authentication.kubernetes.io/pod-uid"] == [uid]
    lab.cluster.delete(pod)
    lab.cluster.wait_gone(name, timeout_s=60)
    until("its files are gone", lambda: not files.parent.exists())
    assert (host / "f").exists()


def test_read_only_on_the_other_engine(lab: NodeLab, probe: str, unique: Name) -> None:
    """The SDK of wasmer gives the guest a copy, the native binding the directory: neither lets a write through."""
    name = unique("wasmer")
    lab.cluster.apply(config_map(name, k="one"))
    pod = lab.run(
        name,
        probe,
        engine="wasmer",
        args=["cat:/cm/k", "write:/cm/k=two", "write:/cm/new=x", "ls:/cm"],
        container={"volumeMounts": [{"name": "cm", "mountPath": "/cm"}]},
        spec={"volumes": [{"name": "cm", "configMap": {"name": name}}], "restartPolicy": "Never"},
        timeout_s=60,
    )
    assert pod["status"]["phase"] == "Succeeded", pod["status"]
    assert said(lab, name)["cat:/cm/k"] == "one"
    # A pod's volumes go when it is over; a second one of the same source shows that nothing was written to it.
    until(
        "volumes are gone", lambda: not (lab.node.dir / "pods" / pod["metadata"]["uid"] / "volumes").exists()
    )


def test_a_volume_that_is_missing_is_waited_for(lab: NodeLab, probe: str, unique: Name) -> None:
    name = unique("late")
    container = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    spec = {"volumes": [{"name": "v", "secret": {"secretName": name}}]}
    lab.apply(name, probe, args=["cat:/v/k"], container=container, spec=spec)
    message = f'MountVolume.SetUp failed for volume "v" : secret "{name}" not found'
    assert lab.event(name, "FailedMount") == message
    assert lab.waiting(name, "ContainerCreating") == message
    lab.cluster.apply(secret(name, k="here"))
    assert lab.cluster.wait_pod(name, timeout_s=60)["status"]["phase"] == "Succeeded"
    assert said(lab, name)["cat:/v/k"] == "here"


def test_a_volume_that_is_not_supported_is_said_to_be(lab: NodeLab, probe: str, unique: Name) -> None:
    name = unique("nfs")
    container = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    spec = {"volumes": [{"name": "v", "nfs": {"server": "192.0.2.1", "path": "/"}}]}
    lab.apply(name, probe, container=container, spec=spec)
    assert "type nfs is not supported" in lab.event(name, "FailedMount")
    lab.cluster.delete(lab.get(name))
    lab.cluster.wait_gone(name, timeout_s=60)


def need_mounts(path: Path) -> None:
    try:
        filesystems.tmpfs(path, 4096)
    except OSError as error:
        pytest.skip(f"nothing may be mounted here ({error.strerror}); an event of the pod says so")
    unmount_below(path)


def claim_of(name: str, storage_class: str) -> dict[str, Any]:
    spec = {"storageClassName": storage_class, "accessModes": ["ReadWriteOnce"]}
    spec["resources"] = {"requests": {"storage": "1Mi"}}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


def persistent_volume(name: str, **source: Any) -> dict[str, Any]:
    """A volume that only the claim of the same class can have."""
    spec = {"storageClassName": name, "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}}
    spec |= {"persistentVolumeReclaimPolicy": "Retain", **source}
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec}


def on_node(name: str) -> dict[str, Any]:
    expression = {"key": "kubernetes.io/hostname", "operator": "In", "values": [name]}
    return {"nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}}


def claimed(name: str, **source: Any) -> list[dict[str, Any]]:
    return [{"name": "data", "persistentVolumeClaim": {"claimName": name, **source}}]


def test_what_a_claim_is_bound_to_outlives_its_pods(
    lab: NodeLab, probe: str, unique: Name, tmp_path: Path
) -> None:
    name, here = unique("local"), on_node(lab.node.name)
    lab.cluster.apply(persistent_volume(name, local={"path": str(tmp_path)}, **here))
    lab.cluster.apply(claim_of(name, name))
    # The scheduler waits for the controller that binds the two.
    writer, reader = unique("writer"), unique("reader")
    mounts = [
        {"name": "data", "mountPath": "/data"},
        {"name": "data", "mountPath": "/sub", "subPath": "a/b"},
    ]
    done = lab.run(
        writer,
        probe,
        args=["write:/data/kept=this", "write:/sub/below=that"],
        container={"volumeMounts": mounts},
        spec={"volumes": claimed(name)},
    )
    assert done["status"]["phase"] == "Succeeded"
    lab.cluster.delete(lab.get(writer))
    lab.cluster.wait_gone(writer, timeout_s=60)
    assert (tmp_path / "kept").read_text() == "this"
    lab.run(
        reader,
        probe,
        args=["cat:/data/kept", "cat:/data/a/b/below", "write:/data/new=1"],
        container={"volumeMounts": mounts[:1]},
        spec={"volumes": claimed(name, readOnly=True)},
    )
    found = said(lab, reader)
    assert (found["cat:/data/kept"], found["cat:/data/a/b/below"]) == ("this", "that")
    assert found["write:/data/new"].startswith("! ")
    assert not (tmp_path / "new").exists()


def test_a_claim_that_leads_nowhere_is_told_in_the_kubelets_words(
    lab: NodeLab, probe: str, unique: Name, tmp_path: Path
) -> None:
    def bound(name: str) -> str:
        """A pod for a claim of its own name, past the scheduler, which would wait for the claim."""
        pod = lab.pod(
            name,
            probe,
            args=["ls:/data"],
            container={"volumeMounts": [{"name": "data", "mountPath": "/data"}]},
            spec={"volumes": claimed(name)},
        )
        pod["spec"]["nodeName"] = lab.node.name
        lab.cluster.apply(pod)
        return name

    unbound, foreign, elsewhere, missing = (unique("claim") for _ in range(4))
    nfs = {"server": "192.0.2.1", "path": "/x"}
    lab.cluster.apply(
        [
            claim_of(unbound, unbound),
            persistent_volume(foreign, nfs=nfs),
            claim_of(foreign, foreign),
            persistent_volume(elsewhere, local={"path": str(tmp_path)}, **on_node("another")),
            claim_of(elsewhere, elsewhere),
        ]
    )
    for name in (unbound, missing):
        bound(name)
    path = "/api/v1/namespaces/default/persistentvolumeclaims"
    for name in (foreign, elsewhere):
        until(
            f"{name} is bound",
            lambda name=name: lab.cluster.rest.get(f"{path}/{name}")["status"].get("phase") == "Bound",
        )
        bound(name)
    start = "Unable to attach or mount volumes: unmounted volumes=[data], unattached volumes=[], failed to process"
    start += " volumes=[data]: error processing PVC default/"

    def told(name: str, message: str) -> None:
        # Among others perhaps: a binding is known to the authorizer of nodes a moment after it is made.
        until(f"{name} is told {message}", lambda: ("FailedMount", message) in lab.events(name))

    told(unbound, f"{start}{unbound}: PVC is not bound")
    told(
        missing,
        f'{start}{missing}: failed to fetch PVC from API server: persistentvolumeclaims "{missing}" not found',
    )
    told(
        foreign,
        f'MountVolume.SetUp failed for volume "{foreign}" : a persistent volume of type nfs is not supported by this'
        " node; hostPath and local are",
    )
    told(
        elsewhere,
        f'MountVolume.NodeAffinity check failed for volume "{elsewhere}" : no matching NodeSelectorTerms',
    )
    # What was missing comes, and the pod runs.
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "x").touch()
    lab.cluster.apply(persistent_volume(missing, hostPath={"path": str(tmp_path / "made")}))
    lab.cluster.apply(claim_of(missing, missing))
    assert lab.cluster.wait_pod(missing, timeout_s=90)["status"]["phase"] == "Succeeded"
    assert said(lab, missing)["ls:/data"] == "x"
    for name in (unbound, foreign, elsewhere):
        lab.cluster.delete(lab.get(name))


def test_a_volume_in_memory_has_its_size(lab: NodeLab, probe: str, unique: Name, tmp_path: Path) -> None:
    need_mounts(tmp_path)
    name = unique("memory")
    lab.apply(
        name,
        probe,
        args=["fill:/t/x=4", "write:/t/y=1", "sleep:600"],
        container={"volumeMounts": [{"name": "t", "mountPath": "/t"}]},
        spec={"volumes": [{"name": "t", "emptyDir": {"medium": "Memory", "sizeLimit": "2Mi"}}]},
    )
    until("it is full", lambda: "write:/t/y" in said(lab, name))
    assert "No space left" in said(lab, name)["fill:/t/x"]
    root = lab.node.dir / "pods" / lab.get(name)["metadata"]["uid"] / "volumes" / "t"
    assert os.path.ismount(root)
    lab.cluster.delete(lab.get(name))
    lab.cluster.wait_gone(name, timeout_s=60)
    until("it is unmounted and gone", lambda: not root.parent.parent.exists())


def test_a_pod_that_takes_more_than_its_size_limit_is_evicted(lab: NodeLab, probe: str, unique: Name) -> None:
    name = unique("greedy")
    lab.apply(
        name,
        probe,
        args=["fill:/t/x=4", "sleep:600"],
        container={"volumeMounts": [{"name": "t", "mountPath": "/t"}]},
        spec={"volumes": [{"name": "t", "emptyDir": {"sizeLimit": "1Mi"}}]},
    )
    status = lab.cluster.wait_pod(name, timeout_s=60)["status"]
    assert (status["phase"], status["reason"]) == ("Failed", "Evicted")
    assert status["message"] == 'Usage of EmptyDir volume "t" exceeds the limit "1Mi". '
    assert "exceeds the limit" in lab.event(name, "Evicted")


# ---- the machine's share ----


def groups_of(lab: NodeLab, uid: str) -> list[Path]:
    """The control groups of a pod, by the directories that the node wrote down."""
    record = lab.node.dir / "cgroups"
    if not record.exists():
        pytest.skip("the node may not make control groups here; an event of the pod says so")
    return [one for parent in record.read_text().splitlines() for one in Path(parent).glob(f"{uid}.*")]


def test_a_guest_that_the_kernel_kills_for_memory_is_oom_killed(
    lab: NodeLab, probe: str, unique: Name, tmp_path: Path
) -> None:
    need_mounts(tmp_path)
    groups_of(lab, "none")
    name = unique("oom")
    pod = lab.run(
        name,
        probe,
        args=["eat:100", "fill:/t/x=64", "sleep:600"],
        container={
            "volumeMounts": [{"name": "t", "mountPath": "/t"}],
            "resources": {"limits": {"memory": "32Mi"}},
        },
        spec={"volumes": [{"name": "t", "emptyDir": {"medium": "Memory", "sizeLimit": "100Mi"}}]},
    )
    assert pod["status"]["phase"] == "Failed"
    end = terminated(pod)
    assert (end["exitCode"], end["reason"]) == (137, "OOMKilled")
    assert "control group" in end["message"]
    # Before that the engine refused it memory, and it went on.
    assert 0 < int(said(lab, name)["eat:100"].split()[0]) <= 24
    assert groups_of(lab, pod["metadata"]["uid"]) == []


def test_a_cpu_limit_holds(lab: NodeLab, probe: str, unique: Name) -> None:
    groups_of(lab, "none")
    name = unique("cpu")
    resources = {"limits": {"cpu": "100m"}, "requests": {"cpu": "50m"}}
    lab.apply(name, probe, args=["loop:"], container={"resources": resources})
    lab.running(name)
    uid = lab.get(name)["metadata"]["uid"]

    def throttled() -> bool:
        stats = [one / "cpu.stat" for one in groups_of(lab, uid)]
        return any("nr_throttled 0" not in stat.read_text() for stat in stats if stat.exists())

    until("it is throttled", throttled)
    (pid,) = (groups_of(lab, uid)[0] / "cgroup.procs").read_text().split()
    # Burstable, without a request for memory: nearly the first to go when memory runs out.
    assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "999"
    lab.cluster.delete(lab.get(name))
    lab.cluster.wait_gone(name, timeout_s=60)
    until("its group is gone", lambda: not groups_of(lab, uid))


def test_a_pod_that_does_not_fit_is_rejected(lab: NodeLab, probe: str, unique: Name) -> None:
    name = unique("big")
    pod = lab.pod(name, probe, container={"resources": {"requests": {"cpu": "1000"}}})
    pod["spec"]["nodeName"] = lab.node.name  # past the scheduler, which would keep it
    lab.cluster.apply(pod)
    status = lab.cluster.wait_pod(name, timeout_s=60)["status"]
    assert (status["phase"], status["reason"]) == ("Failed", "OutOfcpu")
    assert "requested: 1000000" in status["message"]
    assert "capacity" in lab.event(name, "OutOfcpu")


# ---- modules ----


def test_one_pull_for_many_pods_with_the_accounts_secret(lab: NodeLab, unique: Name, tmp_path: Path) -> None:
    name = unique("puller")
    module = tmp_path / "own.wasm"  # hello with a custom section: a digest that the node cannot have yet
    module.write_bytes(HELLO.read_bytes() + b"\0\5\4pull")
    registry = FakeRegistry().start()
    try:
        image = f"{registry.host}/team/hello:v1"
        Client().push(module, image)
        service = TokenService(registry)
        registry.before = service
        login = {"username": service.user, "password": service.password}  # no `auth`: both forms are valid
        lab.cluster.apply(
            [
                {
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "metadata": {"name": name},
                    "type": "kubernetes.io/dockerconfigjson",
                    "stringData": {".dockerconfigjson": json.dumps({"auths": {registry.host: login}})},
                },
                {
                    "apiVersion": "v1",
                    "kind": "ServiceAccount",
                    "metadata": {"name": name},
                    "imagePullSecrets": [{"name": name}],
                },
            ]
        )
        names = [f"{name}-{number}" for number in range(5)]
        for one in names:
            lab.apply(one, image, spec={"serviceAccountName": name})
        for one in names:
            assert lab.cluster.wait_pod(one, timeout_s=60)["status"]["phase"] == "Succeeded"
        layer = next(digest for digest, data in registry.blobs.items() if len(data) > 100)
        assert registry.count("GET", f"/blobs/{layer}") == 1
        told = {one: until(f"{one} tells of its module", lambda one=one: pulled(lab, one)) for one in names}
        assert sum("Successfully pulled image" in text for text in told.values()) == 1, told
        assert any(f"Image size: {module.stat().st_size} bytes." in text for text in told.values())
        assert sum("already present" in text for text in told.values()) == 4
    finally:
        registry.stop()


def pulled(lab: NodeLab, name: str) -> str:
    return next((message for reason, message in lab.events(name) if reason == "Pulled"), "")
