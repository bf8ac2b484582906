"""The charts are well-formed, bounded in size, and say in words what they show."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

import pytest

from wasmlab.widgets import charts, html, svg
from wasmlab.widgets.records import PodRecord, standing
from wasmlab.widgets.waterfall import waterfall

ENGINES = ("wasmtime", "wasmer")
BURST = 1000


def pods(count: int) -> list[PodRecord]:
    return [
        PodRecord(
            ENGINES[number % 2],
            {"api_write_ns": 1_000_000, "scheduled_ns": 2_000_000, "seen_ns": 3_000_000, "started_ns": 5_000_000,
             "first_byte_ns": 6_000_000 + number * 1000, "exited_ns": 7_000_000 + number * 1000,
             "status_observed_ns": 9_000_000 + number * 1000},
            began_ns=number * 500_000,
            block=number // 2,
        )
        for number in range(count)
    ]  # fmt: skip


def growth(own: list[PodRecord]) -> str:
    return charts.growth(
        {"wasmtime": [charts.Point(n, 5.0, 4.0, 6.0) for n in range(6, len(own))], "wasmer": []}
    )


CHARTS: dict[str, Callable[[list[PodRecord]], str]] = {
    "ecdf": lambda own: charts.ecdf(own, ENGINES, "first_byte"),
    "rate": lambda own: charts.rate(own, ENGINES),
    "waterfall": lambda own: waterfall(own, ENGINES, at_once=False),
    "waterfall of a burst": lambda own: waterfall(own, ENGINES, at_once=True),
    "growth": growth,
    "wall": lambda own: charts.wall(["Running", "Failed", "Pending", "Succeeded"] * (len(own) // 4 + 1)),
}


@pytest.mark.parametrize("name", CHARTS)
@pytest.mark.parametrize("count", [0, 1, 7, BURST])
def test_a_chart_is_well_formed_and_has_a_text(name: str, count: int) -> None:
    drawn = CHARTS[name](pods(count))
    root = ElementTree.fromstring(f"<div>{drawn}</div>")
    image = root.find(".//svg")
    assert image is not None and image.get("role") == "img"
    assert len(image.get("aria-label", "")) > 20
    assert "nan" not in drawn and "NaN" not in drawn


@pytest.mark.parametrize("name", ["waterfall", "waterfall of a burst", "wall"])
def test_a_burst_does_not_make_it_larger_than_a_page_can_bear(name: str) -> None:
    assert len(CHARTS[name](pods(BURST))) < 1.2 * len(CHARTS[name](pods(700))) < 60_000


def test_nothing_has_a_color_that_a_theme_cannot_change() -> None:
    for draw in CHARTS.values():
        assert not re.search(r"#[0-9a-fA-F]{3,6}\b", draw(pods(40)))


def test_engines_are_told_apart_without_colors() -> None:
    drawn = charts.ecdf(pods(40), ENGINES, "first_byte")
    lines = {
        engine: re.findall(rf'style="([^"]*stroke:var\(--wl-{engine}\)[^"]*)"', drawn) for engine in ENGINES
    }
    assert all("dasharray" in one for one in lines["wasmer"]) and lines["wasmer"]
    assert not any("dasharray" in one for one in lines["wasmtime"]) and lines["wasmtime"]


def test_a_burst_is_drawn_on_one_clock_and_single_pods_from_zero() -> None:
    def starts(at_once: bool) -> set[str]:
        drawn = waterfall(pods(40), ("wasmtime",), at_once=at_once)
        first = re.search(r'd="([^"]*)" style="fill:none;stroke:var\(--wl-api\)', drawn)
        assert first is not None
        return set(re.findall(r"M([\d.]+) ", first[1]))

    assert len(starts(False)) == 1
    assert len(starts(True)) == 20


def test_cards_do_not_claim_more_than_there_is() -> None:
    def said(own: list[PodRecord], *, at_once: bool = False, running: bool = False) -> str:
        standings = [standing(own, engine, "first_byte", independent=not at_once) for engine in ENGINES]
        return charts.cards(standings, "first_byte", at_once=at_once, running=running)

    assert said([]).count("no pod has ended yet") == 2
    assert "no interval yet: too few pods" in said(pods(4))
    assert "95 % interval" in said(pods(40)) and "n = 20<" in said(pods(40))
    assert "n = 20 so far" in said(pods(40), running=True)
    assert "95 % interval" not in said(pods(40), at_once=True)
    failed = [one._replace(ok=False) if one.block == 0 else one for one in pods(40)]
    assert said(failed).count("n = 19, 1 failed") == 2


def test_what_nobody_has_told_is_not_made_up() -> None:
    own = [
        one._replace(
            when={key: one.when[key] for key in ("api_write_ns", "scheduled_ns", "status_observed_ns")}
        )
        for one in pods(20)
    ]
    standings = [standing(own, engine, "first_byte", independent=False) for engine in ENGINES]
    cards = charts.cards(standings, "first_byte", at_once=True, running=False)
    assert cards.count("nobody told of this moment") == 2 and "n = 0, 10 unknown" in cards
    assert "nobody told of this moment" in charts.ecdf(own, ENGINES, "first_byte")
    drawn = waterfall(own, ENGINES, at_once=True)
    assert "stroke:var(--wl-whole)" in drawn and "stroke:var(--wl-status)" not in drawn
    assert "on the node, as a whole" in drawn
    assert "on the node, as a whole" not in waterfall(pods(20), ENGINES, at_once=True)


def test_a_square_keeps_its_place_when_pods_are_added() -> None:
    few, more = charts.wall(["Succeeded"] * 70), charts.wall(["Succeeded"] * 71)
    paths = [re.findall(r' d="([^"]*)"', one)[0] for one in (few, more)]
    assert paths[1].startswith(paths[0])
    assert charts.wall([]) == ""


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [(0, 10, [0, 2, 4, 6, 8, 10]), (3, 3, [3]), (0.1, 0.2, [0.1, 0.12, 0.14, 0.16, 0.18, 0.2])],
)
def test_ticks_are_round(low: float, high: float, says: list[float]) -> None:
    assert svg.ticks(low, high) == says


def test_there_is_no_half_pod() -> None:
    assert svg.ticks(0, 12.5, whole=True) == [0, 5, 10]
    assert svg.ticks(0, 3, whole=True) == [0, 1, 2, 3]


def test_an_axis_ends_at_a_round_number() -> None:
    assert [svg.ceiling(value) for value in (0, 9, 10, 11, 260, 0.07)] == [1, 10, 10, 12.5, 300, 0.08]


def test_the_style_has_both_themes() -> None:
    names = set(re.findall(r"(--wl-[a-z]+):", html.STYLE))
    used = {name for draw in CHARTS.values() for name in re.findall(r"var\((--wl-[a-z]+)\)", draw(pods(40)))}
    assert used <= names
    assert '[data-jp-theme-light="false"]' in html.STYLE


def luminance(color: str) -> float:
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("name", ["good", "bad", "busy", "wait", "wasmtime", "wasmer"])
def test_text_has_enough_contrast_in_both_themes(name: str) -> None:
    """WCAG 2.2, 1.4.3: 4.5 to 1, on JupyterLab's grounds."""
    light, dark = re.findall(rf"--wl-{name}: (#[0-9a-f]{{6}})", html.STYLE)
    for color, ground in ((light, "#ffffff"), (dark, "#111111"), (dark, "#212121")):
        darker, lighter = sorted((luminance(color), luminance(ground)))
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (name, color, ground)
