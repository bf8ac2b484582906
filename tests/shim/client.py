"""A blocking ttrpc client for the Task service, for what ctr has no command for."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage

from wasmlab.shim.frames import REQUEST, Decoder, encode
from wasmlab.shim.pb import task_pb2, ttrpc_pb2


class Refused(Exception):
    """The shim said no."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Client:
    def __init__(self, path: Path, service: str = "containerd.task.v2.Task") -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(str(path))
        self.service = service
        self.stream = -1

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def call(self, method: str, request: Any, answer: Any = task_pb2.Empty) -> Any:
        self.stream += 2
        message = ttrpc_pb2.Request(
            service=self.service, method=method, payload=request.SerializeToString(), timeout_nano=0
        )
        self.sock.sendall(encode(self.stream, REQUEST, message.SerializeToString()))
        decoder = Decoder()
        while True:
            for frame in decoder.feed(self.sock.recv(65536)):
                assert frame.stream == self.stream
                response = ttrpc_pb2.Response.FromString(frame.payload)
                if response.status.code:
                    raise Refused(response.status.code, response.status.message)
                return answer.FromString(response.payload)

    def connect(self, container: str) -> Any:
        return self.call("Connect", task_pb2.ConnectRequest(id=container), task_pb2.ConnectResponse)

    def update(self, container: str, resources: str) -> None:
        packed = AnyMessage(type_url="types.containerd.io/opencontainers/runtime-spec/1/LinuxResources")
        packed.value = resources.encode()
        self.call("Update", task_pb2.UpdateTaskRequest(id=container, resources=packed))
