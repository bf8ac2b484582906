"""Carry out a plan: one run after the other, every failure a row, Ctrl-C keeps what there is.

Blocks are carried out whole. Between them the machine's noise is read, and the plan's rule for stopping is asked; both
fall into no run's time. At the end the warm-up is marked and steps of the environment are looked for.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, TextIO

from wasmlab.bench import drift, stopping, warmup
from wasmlab.bench.environment import Conditions, now_utc
from wasmlab.bench.noise import NoiseLog
from wasmlab.bench.plan import Arm, Plan, PlannedRun
from wasmlab.bench.store import Results, new_session
from wasmlab.console import PLAIN_EVERY_S, duration, is_live, time_left
from wasmlab.errors import BenchmarkError, WasmlabError


class Executor(Protocol):
    """What can carry out the runs of one path."""

    def run(self, arm: Arm) -> dict[str, Any]:
        """Carry out one run and return the columns it knows.

        At least ``ok`` and ``total_ns``; ``error`` if not ok. May also raise: that is a failed run too.
        """
        ...


class Progress:
    """One line on stderr: done, failed, time left.

    On a terminal it is redrawn; elsewhere a line appears every half minute, so that a long silence is no riddle.

    Parameters
    ----------
    total : int
        Number of runs.
    stream : file, optional
        stderr by default; None with ``quiet``.
    clock : callable
        Seconds; tests give their own.
    """

    def __init__(
        self,
        total: int,
        *,
        quiet: bool = False,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._live = is_live(self._stream)
        self._clock = clock
        self._total = total
        self._started = clock()
        self._printed = self._started

    def update(self, done: int, failed: int, label: str = "") -> None:
        """Show that `done` runs are over."""
        if self._quiet:
            return
        now = self._clock()
        if now - self._printed < (0.1 if self._live else PLAIN_EVERY_S) and done < self._total:
            return
        self._printed = now
        line = self.line(done, failed, label)
        if self._live:
            self._stream.write(f"\r\x1b[K{line}" + ("\n" if done == self._total else ""))
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def line(self, done: int, failed: int, label: str = "") -> str:
        """Return the text of the line."""
        elapsed = self._clock() - self._started
        text = f"   {done}/{self._total} runs"
        if failed:
            text += f", {failed} failed"
        if done == self._total:
            return f"{text}, {duration(elapsed)}"
        if done:
            text += f", {time_left(elapsed, done, self._total)}"
        return f"{text}  {label}".rstrip()

    def close(self) -> None:
        """Leave the line behind."""
        if self._live and not self._quiet:
            self._stream.write("\n")
            self._stream.flush()


def carry_out(
    plan: Plan,
    executors: Mapping[str, Executor],
    environment: dict[str, Any],
    *,
    quiet: bool = False,
    progress: Progress | None = None,
    on_row: Callable[[dict[str, Any]], None] | None = None,
    busy_before: float | None = None,
) -> Results:
    """Carry out the runs of a plan, block by block, until they are done or its rule for stopping ends it.

    Parameters
    ----------
    plan : Plan
        What to run, in which order.
    executors : mapping
        Path -> who runs it.
    environment : dict
        The fingerprint; its id goes into every row.
    on_row : callable, optional
        Called with each finished row.
    busy_before : float, optional
        How much of the machine others used before anything was started (`environment.busy_share`); kept with the
        results.

    Returns
    -------
    Results
        All rows so far if interrupted by Ctrl-C; ``results.plan["interrupted"]`` then says so. ``results.plan`` holds
        the plan and its outcome: ``stopped`` (`wasmlab.bench.stopping.tell`), ``warmup_blocks`` (how many were marked)
        and ``steps`` of the environment; ``results.conditions`` the noise of every block (`wasmlab.bench.noise`).

    Raises
    ------
    BenchmarkError
        If a path of the plan has no executor: nothing was run.
    """
    missing = {arm.path for arm in plan.arms} - set(executors)
    if missing:
        raise BenchmarkError(
            f"nobody can run the path {', '.join(sorted(missing))}",
            remedy="leave out its arms, or start a cluster",
        )
    results = Results(environment=dict(environment))
    # `repeats` is what earlier versions called the number of blocks.
    results.plan = plan.as_dict() | {"repeats": plan.repeats, "interrupted": False}
    session = new_session()
    noise = NoiseLog()
    progress = progress or Progress(len(plan), quiet=quiet)
    before = Conditions.read()
    began_s = time.monotonic()
    because = "blocks"
    failed = 0
    try:
        for runs in _blocks(plan, results, began_s):
            if isinstance(runs, str):
                because = runs
                break
            start = Conditions.read()
            for planned in runs:
                row = _one(planned, executors[planned.arm.path], session, environment)
                results.rows.append(row)
                failed += not row["ok"]
                if on_row is not None:
                    on_row(row)
                progress.update(len(results.rows), failed, str(planned.arm))
            if runs:
                noise.add(runs[0].block, start, Conditions.read())
    except KeyboardInterrupt:
        results.plan["interrupted"] = True
        because = "interrupted"
    if len(results.rows) < len(plan):
        progress.close()
    seconds = time.monotonic() - began_s
    results.conditions.append(
        before.until(Conditions.read())
        | {"busy_share_before": busy_before, "session": session, "blocks": noise.columns}
    )
    _conclude(plan, results, because, seconds)
    return results


def _blocks(plan: Plan, results: Results, began_s: float) -> Iterator[list[PlannedRun] | str]:
    """Yield one block after the other and, if the rule for stopping ends it early, why."""
    rule = plan.stopping
    longest_s = 0.0
    widths: list[float] = []
    for number, runs in enumerate(plan.by_block()):
        now_s = time.monotonic()
        if rule is not None:
            spent = rule.spent(len(results.rows), len(runs), now_s - began_s, longest_s)
            if spent:
                yield spent
            if rule.is_look(number):
                _mark(plan, results)
                widths.append(stopping.widest(results.frame, rule.value)[1])
                if rule.may_end(number, widths):
                    yield "precision"
        now_s = time.monotonic()
        yield runs
        longest_s = max(longest_s, time.monotonic() - now_s)


def _mark(plan: Plan, results: Results) -> int:
    """Mark the rows of the warm-up, and return how many blocks it has."""
    if plan.warmup == warmup.SETTLE:
        first = warmup.first_steady_block(results.frame)
    else:
        first = int(plan.warmup)
    warmup.mark(results.rows, first)
    return first


def _conclude(plan: Plan, results: Results, because: str, seconds: float) -> None:
    if not results.rows:
        return
    results.plan["warmup_blocks"] = _mark(plan, results)
    frame = results.frame
    steps = drift.environment_steps(frame[~frame["warmup"]])
    results.plan["steps"] = [
        {"block": step.block, "ratio": step.ratio.value, "low": step.ratio.low, "high": step.ratio.high}
        for step in steps
    ]
    value = plan.stopping.value if plan.stopping else "total_ns"
    arm, width = stopping.widest(frame, value)
    results.plan["stopped"] = {
        "because": because,
        "blocks": len({row["block"] for row in results.rows}),
        "runs": len(results.rows),
        "seconds": round(seconds, 1),
        "widest_arm": arm,
        # JSON knows no infinity: a single value is known no better than not at all.
        "relative_half_width": round(width, 4) if arm and math.isfinite(width) else None,
        "precision": plan.stopping.precision if plan.stopping else None,
    }


def _one(
    planned: PlannedRun, executor: Executor, session: str, environment: dict[str, Any]
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "run_id": f"{session}-{planned.number:05d}",
        "session": session,
        "block": planned.block,
        **planned.arm._asdict(),
        "started_at": now_utc(),
        "fingerprint": environment.get("id"),
        "warmup": False,
        "ok": False,
        "error": None,
    }
    try:
        row |= executor.run(planned.arm)
    except Exception as error:
        # A broken run must not cost the hundred before it; what broke is in the row.
        text = error.message if isinstance(error, WasmlabError) else str(error)
        row |= {"ok": False, "error": f"{type(error).__name__}: {text}"[:500]}
    if not row["ok"] and not row["error"]:
        row["error"] = "failed without saying why"
    return row


@contextlib.contextmanager
def stack_of(executors: Mapping[str, Any]):
    """Enter all executors that are context managers, and leave them in reverse order."""
    with contextlib.ExitStack() as stack:
        yield {
            path: stack.enter_context(one) if hasattr(one, "__enter__") else one
            for path, one in executors.items()
        }
