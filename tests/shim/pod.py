"""A shim without containerd: bundles made here, the shim's own command line, its Task service called directly."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage

from tests.shim.client import Client
from wasmlab.shim import control, install, mounts
from wasmlab.shim.frames import RESPONSE, Decoder, encode
from wasmlab.shim.pb import events_pb2, task_pb2, ttrpc_pb2


class Events(threading.Thread):
    """Stands where containerd takes events."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.seen: list[Any] = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.start()

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        decoder = Decoder()
        with sock, contextlib.suppress(OSError):
            while data := sock.recv(65536):
                for frame in decoder.feed(data):
                    request = ttrpc_pb2.Request.FromString(frame.payload)
                    assert request.service == "containerd.services.events.ttrpc.v1.Events"
                    envelope = events_pb2.ForwardRequest.FromString(request.payload).envelope
                    name = envelope.event.type_url.removeprefix("containerd.events.")
                    self.seen.append(
                        (envelope.topic, getattr(events_pb2, name).FromString(envelope.event.value))
                    )
                    sock.sendall(encode(frame.stream, RESPONSE, b""))

    def topics(self, container: str) -> list[str]:
        return [topic for topic, event in self.seen if event.container_id == container]

    def close(self) -> None:
        self.listener.close()


class Node:
    """The shim's machinery on this machine, in a directory of its own."""

    def __init__(self, fixtures: Path, engine: str = "wasmtime") -> None:
        self.dir = Path(tempfile.mkdtemp(prefix="wlnode-", dir="/tmp"))
        self.fixtures = fixtures
        self.shim_dir = self.dir / "z"
        self.programs = install.install(self.dir / "bin")
        self.events = Events(self.dir / "events.sock")
        self.pods: list[Bundle] = []

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "WASMLAB_SHIM_DIR": str(self.shim_dir),
            "TTRPC_ADDRESS": str(self.dir / "events.sock"),
            "NAMESPACE": "test",
        }

    def command(self, bundle: Bundle, *action: str, program: int = 0) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [
                *(str(self.programs[program]), "-namespace", "test", "-address", str(self.dir / "c.sock")),
                *("-publish-binary", "/nowhere", "-id", bundle.id, *action),
            ],
            cwd=bundle.path,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )

    def bundle(self, name: str, *args: str, **options: Any) -> Bundle:
        one = Bundle(self, name, *args, **options)
        self.pods.append(one)
        return one

    def close(self) -> None:
        for one in self.pods:
            with contextlib.suppress(Exception):
                one.remove()
        control.stop(self.shim_dir)
        wanted = f"WASMLAB_SHIM_DIR={self.shim_dir}".encode()
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    os.kill(int(entry.name), signal.SIGKILL)
        self.events.close()
        for one in self.pods:
            mounts.unmount_all(str(one.path / "rootfs"))
        shutil.rmtree(self.dir, ignore_errors=True)


class Bundle:
    """An OCI bundle, and the calls that containerd would make for it. Output goes to files."""

    def __init__(
        self,
        node: Node,
        name: str,
        *args: str,
        process: Mapping[str, Any] | None = None,
        linux: Mapping[str, Any] | None = None,
        annotations: Mapping[str, str] | None = None,
        mounts: list[dict[str, Any]] | None = None,
        **more: Any,
    ) -> None:
        self.node, self.id = node, name
        self.path = node.dir / "bundles" / name
        self.rootfs = self.path / "rootfs"
        self.rootfs.mkdir(parents=True)
        self.path.chmod(0o700)
        for source in node.fixtures.glob("*.wasm"):
            shutil.copy(source, self.rootfs / source.name)
        self.config = {
            "ociVersion": "1.1.0",
            "root": {"path": "rootfs"},
            "process": {"args": list(args), "env": [], "cwd": "/", **(process or {})},
            "mounts": mounts or [],
            "annotations": dict(annotations or {}),
            "linux": {"cgroupsPath": f"/wasmlab-test/{name}", **(linux or {})},
            **more,
        }
        self.write()
        self.stdout, self.stderr = self.path / "out", self.path / "err"
        self.client: Client | None = None

    def write(self) -> None:
        (self.path / "config.json").write_text(json.dumps(self.config))

    def start_shim(self, program: int = 0) -> str:
        done = self.node.command(self, "start", program=program)
        assert done.returncode == 0, done.stderr
        address = done.stdout.decode()
        self.client = Client(Path(address.removeprefix("unix://")))
        return address

    def create(self, program: int = 0, **fields: Any) -> int:
        if self.client is None:
            self.start_shim(program)
        request = task_pb2.CreateTaskRequest(
            id=self.id,
            bundle=str(self.path),
            stdout=f"file://{self.stdout}",
            stderr=f"file://{self.stderr}",
        )
        for key, value in fields.items():
            if key == "rootfs":
                request.rootfs.extend(value)
            else:
                setattr(request, key, value)
        return int(self.call("Create", request, task_pb2.CreateTaskResponse).pid)

    def call(self, method: str, request: Any, answer: Any = task_pb2.Empty) -> Any:
        assert self.client is not None
        return self.client.call(method, request, answer)

    def start(self, exec_id: str = "") -> int:
        request = task_pb2.StartRequest(id=self.id, exec_id=exec_id)
        return int(self.call("Start", request, task_pb2.StartResponse).pid)

    def wait(self, exec_id: str = "") -> int:
        request = task_pb2.WaitRequest(id=self.id, exec_id=exec_id)
        return int(self.call("Wait", request, task_pb2.WaitResponse).exit_status)

    def run(self, **fields: Any) -> tuple[int, str, str]:
        """Create, start, wait; return (exit code, stdout, stderr)."""
        self.create(**fields)
        self.start()
        code = self.wait()
        return code, self.stdout.read_text(), self.stderr.read_text()

    def kill(self, number: int = signal.SIGKILL, **fields: Any) -> None:
        self.call("Kill", task_pb2.KillRequest(id=self.id, signal=number, **fields))

    def state(self, exec_id: str = "") -> Any:
        return self.call("State", task_pb2.StateRequest(id=self.id, exec_id=exec_id), task_pb2.StateResponse)

    def delete(self, exec_id: str = "") -> int:
        request = task_pb2.DeleteRequest(id=self.id, exec_id=exec_id)
        return int(self.call("Delete", request, task_pb2.DeleteResponse).exit_status)

    def exec(self, exec_id: str, *args: str, **process: Any) -> None:
        spec = AnyMessage(value=json.dumps({"args": list(args), "env": [], "cwd": "/", **process}).encode())
        request = task_pb2.ExecProcessRequest(
            id=self.id,
            exec_id=exec_id,
            stdout=f"file://{self.path}/{exec_id}.out",
            stderr=f"file://{self.path}/{exec_id}.err",
            spec=spec,
        )
        self.call("Exec", request)

    def shutdown(self) -> None:
        self.call("Shutdown", task_pb2.ShutdownRequest(id=self.id))

    def remove(self) -> None:
        """Whatever state it is in."""
        if self.client is None:
            return
        with contextlib.suppress(Exception):
            self.kill()
            self.wait()
        with contextlib.suppress(Exception):
            self.delete()
        with contextlib.suppress(Exception):
            self.shutdown()
        self.client.sock.close()
        self.client = None


def sandbox_annotations(name: str) -> dict[str, str]:
    return {"io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri.sandbox-id": name}


def member_annotations(name: str, **more: str) -> dict[str, str]:
    return {"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": name, **more}


def cgroups_of(name: str) -> list[Path]:
    # Not by glob, which fails when a group of somebody else's goes while it looks.
    return [
        Path(folder, name)
        for folder, names, _ in os.walk("/sys/fs/cgroup")
        if folder.endswith("/wasmlab-test") and name in names
    ]
