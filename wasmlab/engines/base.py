"""What an engine is to the rest of wasmlab."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from wasmlab.errors import PrerequisiteError

if TYPE_CHECKING:
    from wasmlab.engines.laps import Laps
    from wasmlab.engines.spec import RunSpec, Span
    from wasmlab.engines.stdio import Stdio

# What a program that Linux runs would get; a guest that was killed by a signal reports 128 + its number.
MAX_EXIT_CODE = 255


@dataclass(frozen=True)
class Capabilities:
    """What an engine can do. Every False (and every half True) has its reason in `notes`.

    Attributes
    ----------
    memory_limit : bool
        ``RunSpec.memory_bytes`` is enforced, and growing past it fails inside the guest.
    deadline : bool
        ``RunSpec.deadline_s`` is enforced.
    directories, read_only_dirs : bool
        Host directories can be given to the guest for reading and writing; for reading only.
    stdin, streaming : bool
        The guest can read stdin; output leaves while the guest still runs.
    stream_order : bool
        A log keeps the order in which the guest wrote to stdout and to stderr.
    exit_codes_above_125 : bool
        Codes 126-255 arrive as the guest gave them.
    trap_reason : bool
        Traps come with their reason and are told apart from exit codes.
    components : bool
        WASI preview 2 commands (components) run.
    phases : bool
        Every phase is timed apart (`wasmlab.bench.phases` says what they are): nothing is in `hidden_phases`.
    hidden_phases : mapping
        Phase -> where its time is instead, for each one that the engine's binding does not tell apart.
    fuel : bool
        ``RunSpec.fuel`` is enforced.
    listens : bool
        ``RunSpec.listen`` works: a core module can listen on those TCP ports, and on no others.
    zero_timeouts : bool
        A sleep, or a poll, with a timeout of 0 returns at once.
    argv0 : bool
        The guest sees ``argv[0]`` exactly as given.
    notes : mapping
        Capability -> why not, or what is special.
    """

    memory_limit: bool = True
    deadline: bool = True
    directories: bool = True
    read_only_dirs: bool = True
    stdin: bool = True
    streaming: bool = True
    stream_order: bool = True
    exit_codes_above_125: bool = True
    trap_reason: bool = True
    components: bool = True
    phases: bool = True
    fuel: bool = True
    listens: bool = True
    zero_timeouts: bool = True
    argv0: bool = True
    notes: Mapping[str, str] = field(default_factory=dict)
    hidden_phases: Mapping[str, str] = field(default_factory=dict)

    def lacks(self) -> dict[str, str]:
        """Return each capability that is missing, with the reason."""
        return {
            name: self.notes.get(name, "not supported")
            for name, value in vars(self).items()
            if value is False
        }


@dataclass(frozen=True)
class Compiled:
    """What compiling a module produced: files to be put into the cache.

    Attributes
    ----------
    artifact : str
        The file that `Engine.load` wants, relative to the cache root.
    files : mapping
        Every file, relative path -> content (the artifact included).
    """

    artifact: str
    files: Mapping[str, bytes]


@dataclass(frozen=True)
class GuestResult:
    """How a guest ended, as far as the engine can know it (the sandbox turns it into an `Outcome`).

    Attributes
    ----------
    exit_code : int or None
        As the guest gave it.
    trap : str or None
        As in `Outcome`.
    message : str
        The reason for people.
    spans : tuple of Span
        The engine's phases.
    """

    exit_code: int | None
    trap: str | None = None
    message: str = ""
    spans: tuple[Span, ...] = ()


class Engine(Protocol):
    """One WASM engine. The life of a run: `compile` (in a compile child, once), `prepare` (in the zygote),
    `warm` (in an idle worker), `run` (in that worker, once)."""

    name: str
    # A module that does nothing, and its compiled form if workers shall rehearse with it (set by the zygote).
    noop_module: bytes
    noop: Path | None
    # What `prepare` did, as the phases ``import`` and ``bind``.
    prepared: tuple[Span, ...]

    @property
    def version(self) -> str:
        """Version of the engine's package; known without importing it."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do, and why not."""

    def settings(self) -> dict[str, str]:
        """Everything besides the module and the CPU that shapes the compiled code.

        Returns
        -------
        dict of str to str
            Part of the cache's key.
        """

    def validate(self, wasm: bytes) -> None:
        """Raise `InvalidModule` if the engine refuses the module.

        Parameters
        ----------
        wasm : bytes
            The module.
        """

    def check(self, spec: RunSpec) -> None:
        """Raise `Unsupported` if the engine cannot do what `spec` asks for. Imports nothing heavy."""

    def variant(self, spec: RunSpec) -> str:
        """Return what of `spec` changes the compiled code ("" if nothing does)."""

    def compile(self, wasm: bytes, key: str, variant: str = "", laps: Laps | None = None) -> Compiled:
        """Compile; runs no guest code. Called in a compile child, or in a worker whose run is cold.

        With `laps` the phases ``validate``, ``compile`` and ``serialize`` are told to it, as far as they can be told
        apart; validating by itself is only done then, for every engine validates in compiling, too.

        Parameters
        ----------
        wasm : bytes
            The module.
        key : str
            Name of the entry in the cache.
        variant : str
            What `variant` says of the run's settings.
        laps : Laps, optional
            What is told the phases.

        Returns
        -------
        Compiled
            What to put into the cache.
        """

    def prepare(self, cache_root: Path) -> None:
        """Import the bindings and make what workers can share. Must not start a thread.

        Parameters
        ----------
        cache_root : Path
            Directory of the compile cache.
        """

    def complete(self) -> None:
        """Import and make what only few runs need. Called in the zygote when nobody waits; must not start a thread."""

    def warm(self) -> None:
        """Make what an idle worker can make before it knows what to run. May start threads."""

    def run(
        self,
        artifact: Path,
        spec: RunSpec,
        stdio: Stdio,
        *,
        cold: bool,
        before_guest: Callable[[], None] | None = None,
    ) -> GuestResult:
        """Run the guest in this process, once; `cold` compiles ``spec.module`` here and takes no cache.

        `before_guest` is called when the code is loaded and nothing of the guest exists yet (no directory is open): a
        container gives up the host's files and privileges there. Only for engines whose ``capabilities.directories``
        is true; the others have threads by then, and get no host directory.

        Parameters
        ----------
        artifact : Path or None
            What was compiled; None if `cold`.
        stdio : Stdio
            Where the guest reads and writes.
        spec : RunSpec
            What to run.
        before_guest : callable, optional
            Called before the guest exists.
        cold : bool
            Compile here.

        Returns
        -------
        GuestResult
            How it ended.
        """


def package_version(package: str) -> str:
    """Return the version of an installed package without importing it.

    `importlib.metadata` would do, but its import alone costs more than a whole run; the version is in the name of
    the ``.dist-info`` directory next to the package.

    Raises
    ------
    PrerequisiteError
        If the package is not installed.
    """
    import importlib.util

    found = importlib.util.find_spec(package.replace("-", "_"))
    if found is None or found.origin is None:
        raise PrerequisiteError(
            f"the Python package {package} is not installed", remedy=f"python -m pip install {package}"
        )
    prefix = package.replace("-", "_") + "-"
    site = os.path.dirname(os.path.dirname(found.origin))
    for entry in sorted(os.listdir(site)):
        if entry.startswith(prefix) and entry.endswith(".dist-info"):
            return entry[len(prefix) : -len(".dist-info")]
    from importlib.metadata import version

    return version(package)


def exit_code_of(raw: int) -> tuple[int, str]:
    """Reduce a WASI exit code (32 bits) to what a process can have, and say so if that lost something."""
    code = raw & MAX_EXIT_CODE
    return code, "" if code == raw else f"the guest's exit code {raw & 0xFFFFFFFF} was reduced to {code}"


# Both engines say it in the words of the specification's test suite: (part of the message, wasmtime's trap code).
_TRAPS = (
    ("call stack exhausted", "stack_overflow"),
    ("unreachable", "unreachable"),
    ("out of bounds memory access", "memory_out_of_bounds"),
    ("out of bounds table access", "table_out_of_bounds"),
    ("undefined element", "table_out_of_bounds"),
    ("uninitialized element", "indirect_call_to_null"),
    ("indirect call type mismatch", "bad_signature"),
    ("integer divide by zero", "integer_division_by_zero"),
    ("integer overflow", "integer_overflow"),
    ("invalid conversion to integer", "bad_conversion_to_integer"),
    ("unaligned atomic", "heap_misaligned"),
    ("all fuel consumed", "out_of_fuel"),
)


def trap_kind(text: str) -> str | None:
    """Return the kind of trap that an engine's message tells of; None if it tells of none that is known.

    References
    ----------
    WebAssembly specification, ``test/core`` (assert_trap messages); wasmtime ``crates/environ/src/trap_encoding.rs``.
    """
    return next((kind for part, kind in _TRAPS if part in text), None)


def result_json(result: GuestResult) -> dict[str, Any]:
    """Return the result as a JSON object."""
    return {
        "exit_code": result.exit_code,
        "trap": result.trap,
        "message": result.message,
        "spans": [list(span) for span in result.spans],
    }
