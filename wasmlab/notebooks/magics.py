"""``%load_ext wasmlab``: C cells that become WASM modules and run, and the ``wasmlab`` command in a cell.

``%%wasm`` compiles the cell with the compiler that came by pip and runs the module in the sandbox; ``%wasmlab`` is the
command line. Both run ``wasmlab`` as a child, because a kernel has threads and a sandbox forks; what the child prints
appears as it is printed, and interrupting the kernel ends it.
"""

from __future__ import annotations

import argparse
import codecs
import os
import selectors
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class

from wasmlab.errors import ProcessError
from wasmlab.paths import cache_dir

_GRACE_S = 5.0
_C = "cell.c"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"%%wasm: {message}\n{self.format_usage().strip()}")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="%%wasm",
        add_help=False,
        allow_abbrev=False,
        epilog="Everything else is given to `wasmlab run`: --engine wasmer, --env K=V, --memory 64Mi, --timeout 5s, "
        "-- ARGS of the module.",
    )
    parser.add_argument("--name", metavar="VARIABLE", help="keep the module in this variable")
    parser.add_argument(
        "--flags", metavar="FLAGS", default="", help="flags for the compiler, quoted as one word"
    )
    parser.add_argument("--stdin", metavar="TEXT", default="", help="standard input of the module")
    parser.add_argument("--no-run", action="store_true", help="compile only")
    return parser


@magics_class
class WasmMagics(Magics):
    """The magics of ``%load_ext wasmlab``."""

    @cell_magic
    def wasm(self, line: str, cell: str) -> Any:
        """Compile a C cell to a WASM module and run it.

        Usage::

            %%wasm [--name VARIABLE] [--flags FLAGS] [--stdin TEXT] [--no-run] [options of `wasmlab run`] [-- ARGS]

        The first cell of a machine takes about half a minute: the C library is compiled and kept. A module that ends
        with another exit code than 0 says so and raises nothing: that is a result.
        """
        from wasmlab.modules.build import compile_c

        words = _split(line)
        ours, arguments = (words, []) if "--" not in words else _cut(words)
        chosen, options = _parser().parse_known_args(ours)
        if chosen.name and not chosen.name.isidentifier():
            raise UsageError(f"%%wasm: {chosen.name!r} cannot be the name of a variable")
        stem = chosen.name or "cell"
        with tempfile.TemporaryDirectory(dir=cache_dir("cells")) as scratch:
            source, target = Path(scratch, _C), Path(scratch, f"{stem}.wasm")
            source.write_text(cell)
            try:
                module = compile_c(source, target, flags=_split(chosen.flags))
            except ProcessError as error:
                print((error.log_tail or error.message).replace(f"{scratch}/", ""), file=sys.stderr)
                raise UsageError("%%wasm: the cell does not compile") from None
            if chosen.name:
                self.shell.push({chosen.name: module})  # type: ignore[union-attr]
            if not chosen.no_run:
                call(["run", *options, str(target), *(["--", *arguments] if arguments else [])], chosen.stdin)
        return module if chosen.no_run and not chosen.name else None

    @line_magic
    def wasmlab(self, line: str) -> None:
        """Run the ``wasmlab`` command: ``%wasmlab doctor``, ``%wasmlab oci inspect REF``."""
        words = _split(os.path.expandvars(line))
        call(words or ["--help"])


def _split(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise UsageError(f"{line}: {error}") from error


def _cut(words: list[str]) -> tuple[list[str], list[str]]:
    at = words.index("--")
    return words[:at], words[at + 1 :]


def call(arguments: Sequence[str], stdin: str = "") -> int:
    """Run ``wasmlab`` with these arguments; what it prints goes to this cell as it comes.

    Returns
    -------
    int
        The exit code; another than 0 is also said.

    Raises
    ------
    KeyboardInterrupt
        If the kernel was interrupted; the child has ended by then.
    """
    child = subprocess.Popen(
        [sys.executable, "-m", "wasmlab.cli", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C in a terminal would reach it twice
    )
    try:
        _pump(child, stdin.encode())
        code = child.wait()
    except KeyboardInterrupt:
        child.send_signal(signal.SIGINT)
        try:
            child.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            pass
        raise
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
    if code:
        print(f"exit code {code}", file=sys.stderr)
    return code


def _pump(child: subprocess.Popen[bytes], stdin: bytes) -> None:
    if not (child.stdin and child.stdout and child.stderr):
        raise ValueError("the child needs three pipes")
    utf8 = codecs.getincrementaldecoder("utf-8")
    with selectors.DefaultSelector() as selector, child.stdin, child.stdout, child.stderr:
        selector.register(child.stdout, selectors.EVENT_READ, (sys.stdout, utf8("replace")))
        selector.register(child.stderr, selectors.EVENT_READ, (sys.stderr, utf8("replace")))
        os.set_blocking(child.stdin.fileno(), False)
        selector.register(child.stdin, selectors.EVENT_WRITE)
        while selector.get_map():
            for key, _ in selector.select():
                if key.fileobj is child.stdin:
                    try:
                        stdin = stdin[os.write(key.fd, stdin[: 1 << 16]) :] if stdin else b""
                    except BrokenPipeError:
                        stdin = b""  # it does not read what it was given
                    if not stdin:
                        selector.unregister(child.stdin)
                        child.stdin.close()
                    continue
                data = os.read(key.fd, 1 << 16)
                stream, decoder = key.data
                stream.write(decoder.decode(data, final=not data))
                stream.flush()
                if not data:
                    selector.unregister(key.fileobj)
