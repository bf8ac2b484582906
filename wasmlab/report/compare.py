"""Two sets of results side by side: read them, say what `wasmlab.bench.compare` found, choose the exit code.

Exit codes, for CI: 0 compared, and nothing that was to fail; 1 compared, and something that was to fail
(``--fail-on``); 2 wrong usage; 3 not compared: a set cannot be read, or the two must not be compared.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wasmlab.errors import BenchmarkError
from wasmlab.report.render import Table, plain

if TYPE_CHECKING:
    from wasmlab.bench.compare import Comparison
    from wasmlab.bench.stats import Interval
    from wasmlab.bench.store import Results

OK, FAILED, NOT_COMPARED = 0, 1, 3
FAIL_ON = ("never", "slower", "changed", "unclear")
_RECORDED = "recorded"
_WIDTH = 110


def read(name: str) -> Results:
    """Return the results that a word on the command line names.

    Parameters
    ----------
    name : str
        A Parquet file of `wasmlab bench`, a directory of them, or ``recorded`` (``recorded:paths``) for what came with
        the repository.

    Raises
    ------
    BenchmarkError
        If there is nothing, it cannot be read, or files of one directory must not be pooled.
    """
    from wasmlab.bench.store import Results, load_all, load_recorded

    word, _, which = name.partition(":")
    if word == _RECORDED and not Path(name).exists():
        return load_recorded(which or "bench")
    path = Path(name)
    if path.is_dir():
        return load_all(path)
    if not path.exists():
        raise BenchmarkError(
            f"there are no results at {name}",
            remedy="give a Parquet file, a directory of them, or `recorded`",
        )
    return Results.load(path)


def overall(comparison: Comparison) -> str:
    """Return the verdict about all arms in one word: refused, slower, faster, same or unclear."""
    if comparison.refused:
        return "refused"
    if comparison.slower:
        return "slower"
    if comparison.faster:
        return "faster"
    return "same" if comparison.is_same else "unclear"


def exit_code(comparison: Comparison, fail_on: str = "never") -> int:
    """Return what the command ends with.

    Parameters
    ----------
    fail_on : {"never", "slower", "changed", "unclear"}
        ``slower``: an arm takes longer; ``changed``: an arm takes longer or less; ``unclear``: an arm takes longer, or
        may take longer for all that was measured.
    """
    if comparison.refused:
        return NOT_COMPARED
    failing = {
        "never": False,
        "slower": bool(comparison.slower),
        "changed": bool(comparison.changed),
        "unclear": bool(comparison.slower) or any(one.verdict == "unclear" for one in comparison.arms),
    }
    return FAILED if failing[fail_on] else OK


def text(before: Results, after: Results, comparison: Comparison) -> str:
    """Return the comparison for a terminal or a log."""
    lines = [f"before: {_where(before)}", f"after:  {_where(after)}"]
    if comparison.refused:
        lines += ["", "These must not be compared:", *(f"  - {why}" for why in comparison.refused)]
        lines += _way_out(comparison)
        return "\n".join(lines)
    environment = comparison.environment
    lines += ["", f"environment: {environment.verdict}: {environment.why}", "", plain(table(comparison))]
    allowed = [f"  - {one.kind}: {one}" for one in comparison.differences]
    lines += ["", "They differ in:", *allowed] if allowed else []
    lines += (
        ["", *(textwrap.fill(f"note: {note}", _WIDTH) for note in comparison.notes)]
        if comparison.notes
        else []
    )
    lines += ["", f"verdict: {sentence(comparison)}"]
    return "\n".join(lines)


def sentence(comparison: Comparison) -> str:
    """Say the verdict about all arms in one line."""
    if comparison.refused:
        return "refused: the two must not be compared"
    counts = {
        word: sum(one.verdict == word for one in comparison.arms)
        for word in ("slower", "faster", "same", "unclear")
    }
    said = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    return (
        f"{overall(comparison)} ({said} of {len(comparison.arms)} arms; intervals hold together at "
        f"{comparison.level:.0%}, less than {comparison.margin:.0%} counts as none)"
    )


def table(comparison: Comparison) -> Table:
    """Return one row of texts per arm; what changed comes first."""
    rank = {"slower": 0, "faster": 1, "unclear": 2, "same": 3}
    rows = [
        (
            str(one.arm),
            one.verdict,
            _interval(one.adjusted),
            _interval(one.ratio),
            f"{one.n_before}, {one.n_after}",
            f"{one.failed_before}, {one.failed_after}" if one.failed_before or one.failed_after else "",
            one.why,
        )
        for one in sorted(comparison.arms, key=lambda one: rank.get(one.verdict, 4))
    ]
    return ("arm", "verdict", "times as long", "as measured", "n", "failed", "why"), rows


def document(before: Results, after: Results, comparison: Comparison) -> dict[str, Any]:
    """Return the comparison for programs: what `Comparison.as_dict` has, the two sets, and the verdict in one word."""
    return {
        "verdict": overall(comparison),
        "before": _about(before),
        "after": _about(after),
        **comparison.as_dict(),
    }


def _about(results: Results) -> dict[str, Any]:
    return {
        "measured": results.where,
        "recorded": results.is_recorded,
        "runs": len(results.rows),
        "failed": len(results.failures),
        "environment": results.environment,
    }


def _where(results: Results) -> str:
    mark = "recorded " if results.is_recorded else ""
    return f"{len(results.rows):,} runs, {len(results.failures)} failed, {mark}{results.where}"


def _way_out(comparison: Comparison) -> list[str]:
    from wasmlab.bench.pooling import KINDS

    kinds = {one.kind for one in comparison.differences if one.kind in KINDS and one.kind != "lab"}
    refused = sorted(kind for kind in kinds if any(why.startswith(f"{kind}: ") for why in comparison.refused))
    if not refused or len(refused) < len({why.partition(":")[0] for why in comparison.refused}):
        return []
    options = " ".join(f"--across {kind}" for kind in refused)
    return ["", f"If that is what you compare, say so: {options}"]


def _interval(interval: Interval | None) -> str:
    return "–" if interval is None else f"{interval:.2f}"
