"""The magics, in a real IPython shell and, for streaming and interrupts, in a real kernel."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from jupyter_client.manager import KernelManager

from wasmlab.modules import Module
from wasmlab.notebooks.kernel import ThisInterpreter

HELLO = '#include <stdio.h>\nint main(int c, char **v) { printf("%s-%d\\n", c > 1 ? v[1] : "", c); return c - 1; }\n'
CAT = "#include <stdio.h>\nint main(void) { int c; while ((c = getchar()) != EOF) putchar(c); return 0; }\n"
LOOP = '#include <stdio.h>\nint main(void) { puts("begun"); fflush(stdout); for (;;) {} }\n'


@pytest.fixture(scope="module")
def shell() -> Iterator[InteractiveShell]:
    # A shell makes itself the main module and the way to show values; other tests of this process come after.
    main, show, tell = sys.modules["__main__"], sys.displayhook, sys.excepthook
    one = InteractiveShell.instance()
    one.run_line_magic("load_ext", "wasmlab")
    yield one
    InteractiveShell.clear_instance()
    sys.modules["__main__"], sys.displayhook, sys.excepthook = main, show, tell


@pytest.mark.parametrize("engine", ["wasmtime", "wasmer"])
def test_a_c_cell_is_compiled_and_run(shell: InteractiveShell, capfd: Any, engine: str) -> None:
    shell.run_cell_magic("wasm", f"--engine {engine} --name greet -- 'a word' x", HELLO)
    out, err = capfd.readouterr()
    assert out == "a word-3\n", err
    assert "exit code 2" in err  # a result, not an error
    module = shell.user_ns["greet"]
    assert (
        isinstance(module, Module)
        and module.name == "greet"
        and "wasi_snapshot_preview1.args_get" in module.imports
    )


def test_standard_input_and_compile_only(shell: InteractiveShell, capfd: Any) -> None:
    shell.run_cell_magic("wasm", "--stdin 'zwölf\n'", CAT)
    assert capfd.readouterr().out == "zwölf\n"
    module = shell.run_cell_magic("wasm", "--no-run --flags '-O0 -DX=1'", CAT)
    assert isinstance(module, Module) and capfd.readouterr().out == ""


def test_what_does_not_compile_shows_the_compilers_words(shell: InteractiveShell, capfd: Any) -> None:
    with pytest.raises(UsageError, match="does not compile"):
        shell.run_cell_magic("wasm", "", "int main(void) { return missing; }\n")
    assert "cell.c:1:25: error: use of undeclared identifier 'missing'" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("line", "says"),
    [("--name 3x", "cannot be the name"), ("--name", "expected one argument"), ("'", "No closing")],
)
def test_wrong_usage_is_said_before_anything_is_compiled(
    shell: InteractiveShell, line: str, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        shell.run_cell_magic("wasm", line, "nonsense")


def test_the_command_line_in_a_cell(shell: InteractiveShell, capfd: Any) -> None:
    shell.run_line_magic("wasmlab", "oci inspect --help")
    assert "Usage: wasmlab oci inspect" in capfd.readouterr().out
    shell.run_line_magic("wasmlab", "run nothing.wasm")
    err = capfd.readouterr().err
    assert "there is no file nothing.wasm" in err and "exit code 1" in err


@pytest.mark.timeout(300)
def test_output_appears_while_it_runs_and_an_interrupt_ends_the_guest() -> None:
    manager = KernelManager(kernel_name="python3")
    manager._kernel_spec = ThisInterpreter().kernel_spec
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(60)
        kernel = psutil.Process(manager.provisioner.pid)
        request = client.execute(f"%load_ext wasmlab\nget_ipython().run_cell_magic('wasm', '', {LOOP!r})")
        _until_printed(client, request, "begun")
        manager.interrupt_kernel()
        reply = client.get_shell_msg(timeout=60)
        while (
            reply["parent_header"]["msg_id"] != request
        ):  # a late answer to who asked whether the kernel is there
            reply = client.get_shell_msg(timeout=60)
        assert reply["content"]["ename"] == "KeyboardInterrupt"
        deadline = time.monotonic() + 30
        while any("wasmlab.cli" in " ".join(_cmdline(one)) for one in kernel.children(recursive=True)):
            assert time.monotonic() < deadline, "the guest outlives its cell"
            time.sleep(0.05)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def _until_printed(client: Any, request: str, text: str) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        message = client.get_iopub_msg(timeout=90)
        if message["parent_header"].get("msg_id") == request and text in message["content"].get("text", ""):
            return
    raise AssertionError(f"{text} was not printed")


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
