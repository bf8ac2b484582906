"""What to run, and how it ended: the plain data that crosses process boundaries."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NamedTuple


class Span(NamedTuple):
    """A phase of a run on CLOCK_MONOTONIC, in nanoseconds."""

    phase: str
    start_ns: int
    end_ns: int


@dataclass(frozen=True)
class Preopen:
    """A host directory that the guest may see.

    Attributes
    ----------
    host : str
        The directory on the host.
    guest : str
        Its path inside the guest.
    read_only : bool
        Whether the guest may only read.
    root : str
        If given, `host` lies below it and no symbolic link between the two is followed: what other guests can write
        to must not lead the sandbox out of it. The sandbox sees to that, not the engine.
    """

    host: str
    guest: str
    read_only: bool = False
    root: str = ""


@dataclass(frozen=True)
class RunSpec:
    """One run of one module.

    Attributes
    ----------
    module : str
        Path of the .wasm file on disk, already verified.
    digest : str
        Its digest, ``sha256:<hex>``.
    argv : tuple of str
        Arguments, ``argv[0]`` included.
    env : tuple of (name, value)
        The guest's whole environment; nothing of the host's is added.
    preopens : tuple of Preopen
        The directories it may see; none by default.
    memory_bytes : int, optional
        Most linear memory it may have; the engine's own maximum (4 GiB) if None.
    deadline_s : float, optional
        Seconds after which it is killed; never if None.
    fuel : int, optional
        How many WASM operators it may execute (structure is free, all else costs 1); no limit if None. Unlike a
        deadline it means the same on every machine, but counting makes the code slower.
    cgroups : tuple of str
        Directories of control groups that the worker joins before it loads the module.
    data_bytes : int, optional
        How much private memory the worker may have on top of what it was forked with (RLIMIT_DATA); a backstop where
        no control group can hold it.
    oom_score_adj : int, optional
        How willingly the kernel kills it when memory runs out; the sandbox's own choice if None.
    listen : tuple of int
        TCP ports of the host that it may listen on, 0 for all of them (where the worker has a network namespace of its
        own); without any it has no network at all.
    """

    module: str
    digest: str
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    preopens: tuple[Preopen, ...] = ()
    memory_bytes: int | None = None
    deadline_s: float | None = None
    fuel: int | None = None
    cgroups: tuple[str, ...] = ()
    data_bytes: int | None = None
    oom_score_adj: int | None = None
    listen: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "module": self.module,
            "digest": self.digest,
            "argv": list(self.argv),
            "env": [list(pair) for pair in self.env],
            "preopens": [[p.host, p.guest, p.read_only, p.root] for p in self.preopens],
            "memory_bytes": self.memory_bytes,
            "deadline_s": self.deadline_s,
            "fuel": self.fuel,
            "cgroups": list(self.cgroups),
            "data_bytes": self.data_bytes,
            "oom_score_adj": self.oom_score_adj,
            "listen": list(self.listen),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> RunSpec:
        """Read it back.

        Parameters
        ----------
        value : dict
            What `to_json` returned.
        """
        return cls(
            module=value["module"],
            digest=value["digest"],
            argv=tuple(value["argv"]),
            env=tuple((name, text) for name, text in value["env"]),
            preopens=tuple(Preopen(*one) for one in value["preopens"]),
            memory_bytes=value["memory_bytes"],
            deadline_s=value["deadline_s"],
            fuel=value.get("fuel"),
            # Absent from what an earlier version recorded.
            cgroups=tuple(value.get("cgroups") or ()),
            data_bytes=value.get("data_bytes"),
            oom_score_adj=value.get("oom_score_adj"),
            listen=tuple(value.get("listen") or ()),
        )


@dataclass(frozen=True, repr=False)
class Outcome:
    """How a run ended. Exactly one of `exit_code` and `trap` is set.

    Attributes
    ----------
    exit_code : int or None
        0..255 as the guest gave it; 143 and 137 if it was asked to end by SIGTERM or SIGKILL.
    trap : str or None
        ``unreachable``, ``stack_overflow``, ``memory_out_of_bounds`` and so on (the engine's trap codes);
        ``out_of_memory`` (the memory limit), ``out_of_fuel``, ``deadline``, ``link`` (an import nobody provides),
        ``invalid_module``, ``crash`` (the worker died of a signal), ``killed`` (SIGKILL that nobody here sent),
        ``lost`` (the zygote died, and the worker with it), ``failed`` (the worker machinery failed).
    message : str
        The reason for people; empty when there is nothing to say.
    spans : tuple of Span
        Phases with times on CLOCK_MONOTONIC.
    started_at, finished_at : float
        Wall clock, unix seconds.
    max_rss_bytes : int
        Peak resident memory of the worker process, pages it shares with the zygote included.
    log_lost_bytes : int
        Output that the disk had not taken when the outcome was told (it was full); it is written when there is room.
    cpu_s : float
        CPU time of the worker process, what it did before its run included.
    """

    exit_code: int | None
    trap: str | None = None
    message: str = ""
    spans: tuple[Span, ...] = ()
    started_at: float = 0.0
    finished_at: float = 0.0
    max_rss_bytes: int = 0
    log_lost_bytes: int = 0
    cpu_s: float = 0.0

    # Imported when somebody looks: workers, which have this module too, never do.
    def __repr__(self) -> str:
        from wasmlab.engines import shown

        return shown.short(self)

    def _repr_html_(self) -> str:
        from wasmlab.engines import shown

        return shown.card(self)

    @property
    def ok(self) -> bool:
        """Whether the guest ended by itself with exit code 0."""
        return self.exit_code == 0

    def span(self, phase: str) -> Span | None:
        """Return the span of `phase`, or None if the engine does not report it."""
        return next((span for span in self.spans if span.phase == phase), None)

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {**vars(self), "spans": [list(span) for span in self.spans]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Outcome:
        """Read it back; unknown keys are left out, so that an older reader can read a newer record.

        Parameters
        ----------
        value : dict
            What `to_json` returned.
        """
        known = {name: value[name] for name in cls.__dataclass_fields__ if name in value}
        return cls(**{**known, "spans": tuple(Span(*one) for one in known.get("spans", ()))})


@dataclass(frozen=True, repr=False)
class CapturedOutcome(Outcome):
    """An outcome with the output that was captured.

    Attributes
    ----------
    stdout, stderr : bytes
        What the guest wrote; empty for a stream that went to a descriptor of the caller's.
    truncated : bool
        Whether it wrote more than `Sandbox` captures (the rest was read and dropped).
    """

    stdout: bytes = b""
    stderr: bytes = b""
    truncated: bool = False


def dumps(value: Any) -> bytes:
    """Return `value` as compact JSON."""
    return json.dumps(value, separators=(",", ":")).encode()
