"""The binding's network, as somebody without the lab would use it: listening on the ports that were given."""

from __future__ import annotations

from pathlib import Path

from tests.ports import free_port

SERVE = Path(__file__).resolve().parents[2] / "data/wasm/serve.wasm"
# The guest in a thread (run() releases the GIL), its client here.
CLIENT = """
import http.client
path, port, allowed = sys.argv[2], int(sys.argv[3]), [int(one) for one in sys.argv[4:]]

def ask(what):
    deadline = time.monotonic() + 60
    while thread.is_alive() and time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", what)
            return connection.getresponse().read().decode()
        except OSError:
            time.sleep(0.02)
        finally:
            connection.close()

out, ended = [], []
instance = module(path).instantiate(
    ["serve", str(port), "me"], stdout=out.append, stderr=out.append, listen=allowed)
def go():
    try:
        ended.append(instance.run())
    except w.Trap as trap:
        ended.append(trap.kind)
thread = threading.Thread(target=go)
thread.start()
"""


def test_a_guest_serves_on_its_port(script):
    port = free_port()
    code = """
answers = [ask("/"), ask("/healthz"), ask("/nowhere"), ask("/exit/9")]
thread.join(60)
answer([answers, ended, b"".join(out).decode()])
"""
    answers, ended, said = script(CLIENT + code, SERVE, port, port)
    assert answers == ["me says hello, request 1\n", "ok\n", "nothing at /nowhere\n", "bye\n"]
    assert ended == [9]
    assert said == f"listening on port {port}\n/ 200\n/healthz 200\n/nowhere 404\n/exit/9 200\n"


def test_a_guest_gets_no_other_port_and_none_without(script):
    port = free_port()
    said = [
        script(CLIENT + 'thread.join(60); answer(b"".join(out).decode())', SERVE, port, *allowed)
        for allowed in ([], [port + 1])
    ]
    assert "given no network (not supported)" in said[0] and "(permission denied)" in said[1]


def test_a_guest_that_waits_for_a_connection_can_be_interrupted(script):
    port = free_port()
    code = """
answers = [ask("/healthz")]
instance.interrupt()
thread.join(60)
answer([answers, ended])
"""
    assert script(CLIENT + code, SERVE, port, port) == [["ok\n"], ["interrupted"]]
