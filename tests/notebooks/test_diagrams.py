"""Diagrams are well-formed SVG in which everything is inside and nothing overlaps."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET

from wasmlab.notebooks import diagrams

SVG = "{http://www.w3.org/2000/svg}"


def rectangles(text: str) -> list[tuple[float, float, float, float]]:
    found = []
    for item in ET.fromstring(text).iter(f"{SVG}rect"):
        found.append(tuple(float(item.get(key, 0)) for key in ("x", "y", "width", "height")))
    return found  # type: ignore[return-value]


def test_a_chain_has_its_boxes_side_by_side() -> None:
    text = diagrams.chain(("a", ""), ("b <&>", "sub"), ("c", ""), labels=("first",), highlight=1)
    whole, *boxes = rectangles(text)
    assert len(boxes) == 3
    for left, right in itertools.pairwise(boxes):
        assert left[0] + left[2] < right[0]
    assert all(x >= 0 and x + w <= whole[2] and y >= 0 and y + h <= whole[3] for x, y, w, h in boxes)
    assert "b &lt;&amp;&gt;" in text and "first" in text


def test_arrows_touch_the_boxes_they_connect() -> None:
    boxes = {"a": (0, 0, "a", ""), "b": (0, 1, "b", ""), "c": (1, 1, "c", "")}
    text = diagrams.diagram(boxes, [("a", "b"), ("b", "a"), ("b", "c"), ("c", "b", "back")])
    lines = [
        tuple(float(item.get(key, 0)) for key in ("x1", "y1", "x2", "y2"))
        for item in ET.fromstring(text).iter(f"{SVG}line")
    ]
    down, up, right, left = lines
    assert down[1] < down[3] and up == (down[2], down[3], down[0], down[1])
    assert right[0] < right[2] and left == (right[2], right[3], right[0], right[1])
