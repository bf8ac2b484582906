from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from wasmlab import __version__, cli, completion
from wasmlab.reference import documents


def wasmlab(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "wasmlab.cli", *words], capture_output=True, text=True, timeout=60, check=False
    )


def test_help_lists_every_command() -> None:
    result = wasmlab("--help")
    assert result.returncode == 0
    for command in (
        "run",
        "oci",
        "up",
        "down",
        "status",
        "kubectl",
        "node",
        "containerd",
        "bench",
        "lab",
        "doctor",
    ):
        assert command in result.stdout


def test_a_wrong_command_is_a_usage_error() -> None:
    assert wasmlab("no-such-command").returncode == 2


def test_an_expected_failure_is_a_message_and_not_a_traceback() -> None:
    result = wasmlab("run", "no-such-file.wasm")
    assert result.returncode == 1
    assert "no-such-file.wasm" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("module", ["wasmlab", "wasmlab.cli"])
def test_import_stays_light(module: str) -> None:
    heavy = "pandas matplotlib kubernetes wasmtime wasmer aiohttp papermill numpy"
    script = f"import sys, {module}; print([name for name in {heavy!r}.split() if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_every_public_name_can_be_loaded() -> None:
    import wasmlab

    for name in wasmlab.__all__:
        assert getattr(wasmlab, name) is not None


def test_doctor_speaks_json() -> None:
    result = wasmlab("doctor", "--json")
    told = json.loads(result.stdout)
    assert set(told) == set(documents.DOCUMENTS["doctor"])
    findings = told["findings"]
    states = {one["name"]: one["state"] for one in findings}
    assert states["Python"] == "ok"
    assert states["Engine wasmtime"] in ("ok", "limited")
    assert states["Engine wasmer"] in ("ok", "limited")
    # Whatever does not fully work says what to do, or what is lost.
    assert all(one["remedy"] or one["detail"] for one in findings if one["state"] != "ok")
    assert result.returncode == (1 if "missing" in states.values() else 0)
    engines = json.loads(wasmlab("doctor", "--engines", "--json").stdout)
    assert set(engines) == set(documents.DOCUMENTS["doctor --engines"])


def test_the_package_can_be_run_as_a_module() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "wasmlab", "--help"], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0
    assert "doctor" in result.stdout


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_standard_streams_are_nobody_elses(closed: tuple[int, ...], fixtures_dir: Path) -> None:
    """With stdin closed, the next pipe became fd 0 and `run` waited for ever on a pipe of its own."""
    redirections = " ".join(f"{fd}>&-" for fd in closed)
    script = f'exec "$0" -m wasmlab.cli run "$1" {redirections}'
    result = subprocess.run(
        ["/bin/sh", "-c", script, sys.executable, str(fixtures_dir / "cat.wasm")],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


# ---- for scripts ----


def test_a_failure_is_one_document_on_stdout_and_a_message_on_stderr() -> None:
    done = wasmlab("oci", "inspect", "--json", "127.0.0.1:1/hello")
    assert done.returncode == 1
    (line,) = done.stdout.splitlines()
    error = json.loads(line)["error"]
    assert {f"error.{key}" for key in error} == set(documents.ERROR)
    assert (error["kind"], error["exit_code"]) == ("RegistryUnavailable", 1)
    assert error["message"] in done.stderr and f"try: {error['remedy']}" in done.stderr


def test_wrong_usage_is_a_document_too() -> None:
    done = wasmlab("oci", "push", "--json", "only-a-file")
    assert done.returncode == 2
    error = json.loads(done.stdout)["error"]
    assert (error["kind"], error["remedy"], error["exit_code"]) == ("Usage", "wasmlab oci push --help", 2)
    assert "REF" in error["message"] and "Traceback" not in done.stderr


def test_what_the_system_refuses_is_told_without_a_traceback(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("in the way")
    done = wasmlab("containerd", "kind", "--bundle", str(tmp_path), "--out", str(place / "below"), "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["kind"] == "NotADirectoryError"
    assert str(place) in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [("run", "--json"), ("kubectl", "--", "--json"), ("lab", "--", "--json")])
def test_json_of_somebody_else_is_not_ours(words: tuple[str, ...]) -> None:
    assert not cli._wants_json(words)
    assert cli._wants_json(("lab", "--json", "--", "x"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_says_so(number: int, tmp_path: Path) -> None:
    """A registry that never answers, and a user who has seen enough."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        reference = f"127.0.0.1:{silent.getsockname()[1]}/hello"
        child = subprocess.Popen(
            [sys.executable, "-m", "wasmlab.cli", "oci", "inspect", "--json", reference],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            silent.settimeout(60)
            connection, _ = silent.accept()
            with connection:
                connection.recv(1)  # it has asked
                child.send_signal(number)
                out, said = child.communicate(timeout=60)
        finally:
            child.kill()
            child.wait()
    assert child.returncode == 130, said
    assert json.loads(out)["error"]["kind"] == "Interrupted"
    assert "Traceback" not in said


# ---- on a terminal ----


def on_a_terminal(*words: str, **environment: str) -> str:
    """Return what a command prints on a terminal of 100 columns."""
    parent, child = pty.openpty()
    # FORCE_COLOR and TTY_COMPATIBLE, which a CI may set, would have the last word about colors.
    clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE")}
    process = subprocess.Popen(
        [sys.executable, "-m", "wasmlab.cli", *words], stdin=child, stdout=child, stderr=child,
        env={**clean, "TERM": "xterm", "COLUMNS": "100", **environment},
    )  # fmt: skip
    os.close(child)
    shown = b""
    try:
        while piece := os.read(parent, 65536):
            shown += piece
    except OSError:
        pass  # Linux's way to say that the other end is closed
    finally:
        process.wait(60)
        os.close(parent)
    return shown.decode()


def test_colors_are_for_terminals_and_not_for_no_color() -> None:
    assert "\x1b[32m✓" in on_a_terminal("doctor")
    assert "\x1b[3" not in on_a_terminal("doctor", NO_COLOR="1")
    assert "\x1b" not in on_a_terminal("doctor", TERM="dumb")
    assert "\x1b" not in wasmlab("doctor").stdout
    assert "\x1b[3" not in on_a_terminal("run", "--help", NO_COLOR="1")


def test_the_version() -> None:
    assert wasmlab("--version").stdout == f"wasmlab {__version__}\n"


# ---- completion ----

SHELLS = {
    "bash": """
        source <(wasmlab completion bash)
        COMP_WORDS=({words} ""); COMP_CWORD={index}; _wasmlab_completion wasmlab; printf '%s\\n' "${{COMPREPLY[@]}}"
        """,
    "zsh": """
        compdef() {{ :; }}
        _arguments() {{ print -rl -- "$@" }}
        source <(wasmlab completion zsh)
        words=({words} ""); CURRENT={count}; _wasmlab_completion
        """,
    "fish": """
        wasmlab completion fish | source
        complete --do-complete "{words} "
        """,
}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("words", "offered"),
    [(["wasmlab"], "batch"), (["wasmlab", "oci"], "inspect"), (["wasmlab", "run", "-e"], "wasmer")],
)
def test_shells_complete_commands_and_values(
    shell: str, words: list[str], offered: str, tmp_path: Path
) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    script = textwrap.dedent(SHELLS[shell]).format(
        words=" ".join(words), index=len(words), count=len(words) + 1
    )
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    options = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    done = subprocess.run(
        [program, *options, "-c", script], capture_output=True, text=True, timeout=60,
        env={**os.environ, "PATH": path, "HOME": str(tmp_path)},
    )  # fmt: skip
    assert re.search(rf'(^|["\s]){offered}(["\s]|$)', done.stdout, re.MULTILINE), done.stdout + done.stderr


def test_completion_knows_which_command_is_whole() -> None:
    asked = {completion.VARIABLE: "complete_bash"}
    assert completion.first_word([], asked | {"COMP_WORDS": "wasmlab\nru"}) is None
    assert completion.first_word([], asked | {"COMP_WORDS": "wasmlab\nrun\n--e"}) == "run"
    assert completion.first_word([], asked | {"_TYPER_COMPLETE_ARGS": "wasmlab oci "}) == "oci"
    assert completion.first_word(["run"], {}) == "run" and completion.first_word([], {}) is None
    assert wasmlab("completion", "tcsh").returncode == 2


def test_a_word_that_is_neither_file_nor_reference_asks_no_registry() -> None:
    done = wasmlab("run", "hello")
    assert done.returncode == 1
    assert "there is no file hello" in done.stderr and "try: give a path (./hello.wasm)" in done.stderr


def test_run_writes_how_it_ended(fixtures_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "how.json"
    assert wasmlab("run", "--outcome", str(file), str(fixtures_dir / "exit.wasm"), "--", "7").returncode == 7
    told = json.loads(file.read_text())
    assert (told["exit_code"], told["status"], told["trap"], told["engine"]) == (7, 7, None, "wasmtime")
    assert {"import", "run"} <= {phase for phase, _, _ in told["spans"]}
    assert wasmlab("run", "--outcome", str(file), str(fixtures_dir / "trap.wasm")).returncode == 134
    told = json.loads(file.read_text())
    assert (told["exit_code"], told["status"]) == (None, 134) and told["trap"]
