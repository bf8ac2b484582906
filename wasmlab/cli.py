"""The `wasmlab` command: it only gathers what each package offers in its ``commands.py``.

What a command found goes to stdout, everything else to stderr. With ``--json`` stdout holds exactly one JSON document,
also on failure: ``{"error": {"kind", "message", "remedy", "exit_code"}}``. Messages for people go to stderr then too.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from wasmlab import __version__, completion, console, helptext
from wasmlab.errors import WasmlabError

#: Exit codes that any command may end with. `wasmlab run` and `wasmlab report compare` have more.
DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

# In the order in which `wasmlab --help` lists them.
_PROVIDERS = (
    "wasmlab.sandbox.commands",
    "wasmlab.oci.commands",
    "wasmlab.cluster.commands",
    "wasmlab.node.commands",
    "wasmlab.cluster.guestcommands",
    "wasmlab.containerd.commands",
    "wasmlab.bench.commands",
    "wasmlab.report.commands",
    "wasmlab.notebooks.commands",
    "wasmlab.notebooks.jupytercommand",
    "wasmlab.doctor.commands",
    "wasmlab.completion",
)

# A `wasmlab run` should not pay for the imports of every other command: when the first word already names a
# provider, only what it needs is loaded.
_OWNERS = {
    "run": ("wasmlab.sandbox.commands",),
    "oci": ("wasmlab.oci.commands",),
    "up": ("wasmlab.cluster.commands",),
    "down": ("wasmlab.cluster.commands", "wasmlab.containerd.commands"),  # ends container nodes too
    "status": ("wasmlab.cluster.commands",),
    "kubectl": ("wasmlab.cluster.commands",),
    "cluster": ("wasmlab.cluster.guestcommands",),
    "node": ("wasmlab.node.commands",),
    "containerd": ("wasmlab.containerd.commands",),
    "bench": ("wasmlab.bench.commands",),
    "report": ("wasmlab.report.commands",),
    "lab": ("wasmlab.notebooks.commands",),
    "batch": ("wasmlab.notebooks.commands",),
    "jupyter": ("wasmlab.notebooks.jupytercommand",),
    "doctor": ("wasmlab.doctor.commands",),
    "completion": ("wasmlab.completion",),
}

# These pass signals on, or have their own way to end: a guest's, the agent's, kubectl's.
_OWN_SIGNALS = ("run", "node", "kubectl")
# What follows these words is somebody else's: a --json there is not ours.
_OWN_WORDS = ("run", "kubectl")

_START_HERE = (
    "Start here: [bold]wasmlab doctor[/bold] says what runs on this machine, [bold]wasmlab up[/bold] starts a lab, "
    "[bold]wasmlab COMMAND --help[/bold] teaches with examples."
)


def build_app(first_word: str | None = None) -> typer.Typer:
    """Assemble the command line.

    Parameters
    ----------
    first_word : str, optional
        The first word the user typed; if it names a command, only that command's package is imported.
    """
    app = typer.Typer(
        name="wasmlab",
        help="WebAssembly on Kubernetes down two paths, and what each one costs.",
        epilog=_START_HERE,
        no_args_is_help=True,
        add_completion=False,  # `wasmlab completion` prints the script; nothing edits the user's files
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def root(
        version: Annotated[
            bool,
            typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True),
        ] = False,
    ) -> None:
        """WebAssembly on Kubernetes down two paths, and what each one costs."""

    for provider in _OWNERS.get(first_word or "", _PROVIDERS):
        importlib.import_module(provider).register(app)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"wasmlab {__version__}")
        raise typer.Exit


def _open_standard_streams() -> None:
    """Open /dev/null wherever stdin, stdout or stderr was closed (``<&-``, some daemons and cron jobs).

    Otherwise the next pipe or socket takes the number, and what a child or a guest reads or prints ends up there.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            # The lowest free number is taken, which is `fd`, because those below it are open by now.
            os.set_inheritable(os.open(os.devnull, os.O_RDONLY if fd == 0 else os.O_WRONLY), True)


def _wants_json(words: Sequence[str]) -> bool:
    if not words or words[0] in _OWN_WORDS:
        return False
    own = words[: words.index("--")] if "--" in words else words
    return "--json" in own


def _interrupt(*_: Any) -> None:
    # SIGTERM ends a command as Ctrl-C does: what it started is stopped, what it measured is kept.
    raise KeyboardInterrupt


def _fail(kind: str, message: str, remedy: str | None, code: int, as_json: bool) -> int:
    if as_json and not console.has_emitted():
        console.emit(console.failed(kind, message, remedy, code))
    return code


def _invoke(first: str | None, as_json: bool) -> int:
    command = helptext.prepare(typer.main.get_command(build_app(first)))
    if not as_json:
        command(prog_name=completion.PROGRAM)  # ends by SystemExit, with usage errors in boxes
        return DONE
    try:
        code = command(prog_name=completion.PROGRAM, standalone_mode=False)
    except Exception as error:
        # A usage error, whatever its class is called in this version of typer; anything else is somebody else's.
        said = getattr(error, "format_message", None)
        if said is None:
            raise
        message = said()
        console.say(f"wasmlab: {message}")
        command = getattr(getattr(error, "ctx", None), "command_path", completion.PROGRAM)
        return _fail("Usage", message, f"{command} --help", USAGE, as_json)
    code = code if isinstance(code, int) else DONE
    if code == INTERRUPTED:
        return _fail("Interrupted", "interrupted", None, INTERRUPTED, as_json)
    return code


def main() -> None:
    """Entry point: 0 done, 1 failed with a message on stderr, 2 wrong usage, 130 interrupted."""
    _open_standard_streams()
    words = sys.argv[1:]
    first = completion.first_word(words)
    as_json = _wants_json(words)
    if completion.VARIABLE in os.environ:
        from typer.completion import completion_init

        completion_init()
    if first not in _OWN_SIGNALS:
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        sys.exit(_invoke(first, as_json))
    except WasmlabError as error:
        console.say(f"wasmlab: {error}")
        sys.exit(_fail(type(error).__name__, error.message, error.remedy, FAILED, as_json))
    except KeyboardInterrupt:
        sys.exit(_fail("Interrupted", "interrupted", None, INTERRUPTED, as_json))
    except BrokenPipeError:
        # The reader went away (`wasmlab ... | head`). Point stdout elsewhere so that the exit flush stays quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except OSError as error:
        if os.environ.get("WASMLAB_TRACEBACK"):
            raise
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        console.say(
            f"wasmlab: {what}\n  try: look at the path, its permissions and the space left "
            "(WASMLAB_TRACEBACK=1 shows where it happened)"
        )
        sys.exit(_fail(type(error).__name__, what, None, FAILED, as_json))


if __name__ == "__main__":
    main()
