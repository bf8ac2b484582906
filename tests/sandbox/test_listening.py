"""Modules that listen: what each adapter lets a guest do, and why wasmtime does not let components."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.ports import answer, ask, free_port
from wasmlab import engines
from wasmlab.engines import table
from wasmlab.errors import Unsupported
from wasmlab.sandbox import AsyncSandbox, Outcome

# Asks wasi:sockets for a TCP socket and returns the result: 0 if it got one, else 1 + the error code.
TCP_COMPONENT = """
(component
  (import "wasi:sockets/network@0.2.0" (instance $network
    (type $code (enum "unknown" "access-denied" "not-supported" "invalid-argument" "out-of-memory" "timeout"
      "concurrency-conflict" "not-in-progress" "would-block" "invalid-state" "new-socket-limit" "address-not-bindable"
      "address-in-use" "remote-unreachable" "connection-refused" "connection-reset" "connection-aborted"
      "datagram-too-large" "name-unresolvable" "temporary-resolver-failure" "permanent-resolver-failure"))
    (export "error-code" (type (eq $code)))
    (type $family (enum "ipv4" "ipv6"))
    (export "ip-address-family" (type (eq $family)))))
  (alias export $network "error-code" (type $code))
  (alias export $network "ip-address-family" (type $family))
  (import "wasi:sockets/tcp@0.2.0" (instance $tcp (export "tcp-socket" (type (sub resource)))))
  (alias export $tcp "tcp-socket" (type $socket))
  (import "wasi:sockets/tcp-create-socket@0.2.0" (instance $create
    (alias outer 1 $family (type $f)) (alias outer 1 $code (type $c)) (alias outer 1 $socket (type $s))
    (export "create-tcp-socket" (func (param "address-family" $f) (result (result (own $s) (error $c)))))))
  (core module $memory (memory (export "memory") 1))
  (core instance $memory (instantiate $memory))
  (core func $create (canon lower (func $create "create-tcp-socket") (memory (core memory $memory "memory"))))
  (core module $main
    (import "" "memory" (memory 1))
    (import "" "create" (func $create (param i32 i32)))
    (func (export "run") (result i32)
      (call $create (i32.const 0) (i32.const 8))
      (if (result i32) (i32.load8_u (i32.const 8))
        (then (i32.add (i32.const 1) (i32.load8_u (i32.const 12)))) (else (i32.const 0)))))
  (core instance $main (instantiate $main (with "" (instance
    (export "memory" (memory $memory "memory")) (export "create" (func $create))))))
  (func (export "run") (result u32) (canon lift (core func $main "run"))))
"""
ACCESS_DENIED = 1 + 1
# Connects to 127.0.0.1:PORT and leaves with the error.
CONNECT = """(module
  (import "wasix_32v1" "sock_open" (func $open (param i32 i32 i32 i32) (result i32)))
  (import "wasix_32v1" "sock_connect" (func $connect (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "\\01\\00PORT\\7f\\00\\00\\01")
  (func (export "_start")
    (if (call $open (i32.const 1) (i32.const 1) (i32.const 6) (i32.const 0)) (then unreachable))
    (call $exit (call $connect (i32.load (i32.const 0)) (i32.const 16)))))"""
PERM = 63
# What the C API gives: all of the network, in a process of its own (no test process should hold an engine's threads).
PROBE = """
import json, sys, wasmtime
from wasmtime import _bindings, component
engine = wasmtime.Engine()
linker = component.Linker(engine)
linker.add_wasip2()
store = wasmtime.Store(engine)
wasi = wasmtime.WasiConfig()
_bindings.wasi_config_inherit_network(wasi.ptr())
store.set_wasi(wasi)
instance = linker.instantiate(store, component.Component(engine, wasmtime.wat2wasm(sys.stdin.read())))
names = [name for name in dir(_bindings) if not name.startswith("_")]
print(json.dumps({
    "socket": instance.get_func(store, "run")(store),
    "switches": [name for name in names if "allow_tcp" in name or "preopen_socket" in name],
    "serving": [name for name in names if "incoming" in name or "proxy" in name],
}))
"""


def test_why_components_do_not_serve_on_wasmtime_is_still_true():
    """If this fails, wasmtime has learnt something: then components can be given ports."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE], input=TCP_COMPONENT, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    # The whole network is inherited, and yet no socket can be made: nothing sets the switch for TCP.
    assert json.loads(done.stdout) == {"socket": ACCESS_DENIED, "switches": [], "serving": []}


@pytest.fixture
def serve(sandbox, spec, helpers):
    """Run the server with some ports; return what it said and its exit code."""
    path = helpers.root / "data/wasm/serve.wasm"

    def run(port: int, *allowed: int):
        if allowed and not sandbox.engine.capabilities.listens:
            with pytest.raises(Unsupported) as refused:
                sandbox.run(spec(path, str(port), listen=allowed))
            assert refused.value.capability == "listens"
            pytest.skip("it says that it cannot")
        outcome = sandbox.run(spec(path, str(port), listen=allowed))
        return outcome.exit_code, outcome.stderr.decode()

    return run


def test_a_guest_without_ports_has_no_network(serve):
    code, said = serve(8080)
    if code is not None:  # else it knows no sockets at all, and did not link
        assert code == 1
        assert said == "cannot listen on port 8080: this program was given no network (not supported)\n"


def test_a_guest_listens_on_no_port_but_its_own(serve):
    port = free_port()
    code, said = serve(port, port + 1)
    assert code == 1 and "permission denied" in said


def test_port_0_stands_for_all(sandbox, spec, helpers):
    if not sandbox.engine.capabilities.listens:
        pytest.skip("it says that it cannot")
    port = free_port()
    serve = spec(helpers.root / "data/wasm/serve.wasm", str(port), listen=(0,))
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(sandbox.run, serve)
        assert answer(port, "/exit/0", unless=ended.done) == "bye\n"
        assert ended.result(30).exit_code == 0


def test_a_port_that_is_taken_is_said_to_be(serve):
    port = free_port()
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        code, said = serve(port, port)
    assert code == 1 and "address in use" in said


def test_sigterm_ends_a_guest_that_waits_for_a_connection(sandbox, spec, helpers, tmp_path):
    if not sandbox.engine.capabilities.listens:
        pytest.skip("it says that it cannot")
    port = free_port()

    async def served() -> Outcome:
        client = await AsyncSandbox.connect(sandbox.engine.name, tmp_path / "z", cache=sandbox.cache)
        try:
            path = helpers.root / "data/wasm/serve.wasm"
            run = await client.start("r", spec(path, str(port), listen=(port,)), log_path=tmp_path / "log")
            assert await asyncio.to_thread(answer, port, unless=lambda: run.done)
            await run.kill(signal.SIGTERM)
            return await run.wait()
        finally:
            await client.shutdown()
            await client.aclose()

    assert asyncio.run(served()).exit_code == 128 + signal.SIGTERM
    assert ask("127.0.0.1", port) is None


def test_a_guest_that_may_listen_may_not_connect(sandbox, spec, wat):
    if not sandbox.engine.capabilities.listens:
        pytest.skip("it says that it cannot")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        connects = wat(CONNECT.replace("PORT", f"\\{port & 255:02x}\\{port >> 8:02x}"))
        assert sandbox.run(spec(connects, listen=(port,))).exit_code == PERM
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.accept()


def test_a_component_is_refused_in_the_run(sandbox, spec, helpers):
    if not sandbox.engine.capabilities.components:
        pytest.skip("it runs no components at all")
    outcome = sandbox.run(spec(helpers.root / "data/wasm/components/hello.wasm", listen=(8080,)))
    assert outcome.trap == "unsupported" and "wasi:sockets" in outcome.message


def test_every_adapter_has_its_say():
    assert all("listens" in table.capabilities(name).notes for name in engines.variants())
