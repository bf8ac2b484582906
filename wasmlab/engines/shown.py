"""How an outcome shows itself: what it came to, where its time went, what it printed. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wasmlab import markup

if TYPE_CHECKING:
    from wasmlab.engines.spec import Outcome


def line(outcome: Outcome) -> str:
    """Return an outcome in one line, e.g. ``"exit code 0"`` or ``"stopped (deadline): ..."``."""
    if outcome.trap is not None:
        return (
            f"stopped ({outcome.trap}): {outcome.message}" if outcome.message else f"stopped ({outcome.trap})"
        )
    return f"exit code {outcome.exit_code}" + (f": {outcome.message}" if outcome.message else "")


def short(outcome: Outcome) -> str:
    """Return what `repr` shows: how it ended, how long it ran, and the beginning of what it printed."""
    parts = [line(outcome)[:120]]
    ran = outcome.span("run")
    if ran is not None:
        parts.append(f"ran {(ran.end_ns - ran.start_ns) / 1e6:.3f} ms")
    for name in ("stdout", "stderr"):
        said: bytes = getattr(outcome, name, b"")
        if said:
            parts.append(f"{name}={said[:40]!r}{'...' if len(said) > 40 else ''}")
    return f"<{type(outcome).__name__}: {', '.join(parts)}>"


def card(outcome: Outcome) -> str:
    """Return it as HTML."""
    stdout, stderr = getattr(outcome, "stdout", b""), getattr(outcome, "stderr", b"")
    facts: list[tuple[str, object]] = [("phases", _phases(outcome) or None)]
    if outcome.max_rss_bytes:
        used = f"{outcome.max_rss_bytes / 1e6:.1f} MB at most"
        facts.append(("memory", used + (f", {outcome.cpu_s:.3f} s of CPU" if outcome.cpu_s else "")))
    facts += [(name, markup.output(said)) for name, said in (("stdout", stdout), ("stderr", stderr)) if said]
    if getattr(outcome, "truncated", False):
        facts.append(("", "it printed more than was captured"))
    return markup.card(markup.verdict(outcome.ok, line(outcome)), facts)


def _phases(outcome: Outcome) -> markup.Html:
    """Return a bar for every phase, where it lies in the time of the run."""
    if not outcome.spans:
        return markup.Html("")
    first = min(span.start_ns for span in outcome.spans)
    whole = max(span.end_ns for span in outcome.spans) - first
    rows = "".join(
        _phase(span.phase, span.start_ns - first, span.end_ns - span.start_ns, max(whole, 1))
        for span in outcome.spans
    )
    return markup.Html(
        f'<table style="border-collapse:collapse;margin:0;border:0;color:inherit">{rows}</table>'
    )


def _phase(name: str, begins_ns: int, took_ns: int, whole_ns: int) -> str:
    cell = "border:0;background:none;padding:0 10px 0 0;text-align"
    place = (
        f"margin-left:{round(160 * begins_ns / whole_ns)}px;width:{max(1, round(160 * took_ns / whole_ns))}px"
    )
    bar = f"display:inline-block;height:8px;{place};background:#0072b2"
    return (
        f'<tr style="background:none"><td style="{cell}:left">{markup.text(name)}</td>'
        f'<td style="{cell}:right;font-variant-numeric:tabular-nums">{took_ns / 1e6:.3f} ms</td>'
        f'<td style="{cell}:left"><span style="{bar}"></span></td></tr>'
    )
