"""The `wasmlab` command: it only gathers what each package offers in its ``commands.py``."""

from __future__ import annotations

import importlib
import os
import sys

import typer

from wasmlab.errors import WasmlabError

# In the order in which `wasmlab --help` lists them.
_PROVIDERS = (
    "wasmlab.sandbox.commands",
    "wasmlab.oci.commands",
    "wasmlab.cluster.commands",
    "wasmlab.node.commands",
    "wasmlab.containerd.commands",
    "wasmlab.bench.commands",
    "wasmlab.report.commands",
    "wasmlab.notebooks.commands",
    "wasmlab.doctor.commands",
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
    "node": ("wasmlab.node.commands",),
    "containerd": ("wasmlab.containerd.commands",),
    "bench": ("wasmlab.bench.commands",),
    "report": ("wasmlab.report.commands",),
    "lab": ("wasmlab.notebooks.commands",),
    "batch": ("wasmlab.notebooks.commands",),
    "doctor": ("wasmlab.doctor.commands",),
}


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
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def root() -> None:
        """WebAssembly on Kubernetes down two paths, and what each one costs."""

    for provider in _OWNERS.get(first_word or "", _PROVIDERS):
        importlib.import_module(provider).register(app)
    return app


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


def main() -> None:
    """Entry point: 0 done, 1 failed with a message on stderr, 2 wrong usage, 130 interrupted."""
    _open_standard_streams()
    first_word = sys.argv[1] if len(sys.argv) > 1 else None
    try:
        build_app(first_word)(prog_name="wasmlab")
    except WasmlabError as error:
        print(f"wasmlab: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader went away (`wasmlab ... | head`). Point stdout elsewhere so that the exit flush stays quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()
