"""What objects show of themselves, in a notebook and at a prompt; other people's words are only words."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from wasmlab import Cluster, Module, Outcome, Reference, markup
from wasmlab.bench import Results, load_recorded
from wasmlab.cluster.shown import Pod
from wasmlab.oci import Inspected, Pulled, Pushed
from wasmlab.oci.results import PushedImage
from wasmlab.sandbox import CapturedOutcome, Span

EVIL = "<script>alert(1)</script>\"'&"
DIGEST = "sha256:" + "0" * 64
REF = Reference.parse("127.0.0.1:5000/hello:v1")


def evil_pod() -> Pod:
    state = {"terminated": {"exitCode": 3, "reason": EVIL, "message": EVIL}}
    return Pod(
        metadata={"name": EVIL, "namespace": EVIL},
        spec={"nodeName": EVIL, "containers": [{"name": EVIL, "image": EVIL}]},
        status={
            "phase": "Failed", "reason": EVIL, "message": EVIL,
            "containerStatuses": [{"name": EVIL, "state": state, "restartCount": 2}],
        },
    )  # fmt: skip


def evil_inspected() -> Inspected:
    manifest = {"layers": [{"digest": EVIL, "mediaType": EVIL, "size": EVIL, "platform": {"os": EVIL}}, EVIL]}
    return Inspected(REF, EVIL, EVIL, manifest, b"{}", EVIL, None, EVIL)


class Tags(HTMLParser):
    """What a browser would find: an attribute whose value can end its quotes makes others."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


OBJECTS: dict[str, Any] = {
    "module": Module(b"\0asm\1\0\0\0", name=EVIL),
    "outcome": CapturedOutcome(
        None,
        EVIL,
        EVIL,
        (Span(EVIL, 0, 2_000_000), Span("run", 0, 1)),
        stdout=EVIL.encode(),
        stderr=b"\xff\0",
    ),
    "pod": evil_pod(),
    "pushed": Pushed(REF, EVIL, 1, EVIL),
    "image": PushedImage(REF, EVIL, 1, (EVIL,)),
    "pulled": Pulled(REF, EVIL, EVIL, 1, Path(EVIL)),
    "inspected": evil_inspected(),
    "results": Results([{"path": EVIL, "engine": EVIL, "mode": EVIL, "workload": EVIL, "ok": True}]),
    "cluster": Cluster(kubeconfig=Path("/nowhere") / EVIL),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_other_peoples_words_are_escaped_and_nothing_is_loaded(name: str) -> None:
    shown = OBJECTS[name]._repr_html_()
    assert "<script" not in shown and "&lt;script&gt;" in shown
    seen = Tags()
    seen.feed(shown)
    assert seen.tags <= {
        "b",
        "br",
        "code",
        "div",
        "pre",
        "span",
        "style",
        "table",
        "tbody",
        "td",
        "th",
        "thead",
        "tr",
    }
    assert seen.attributes <= {"class", "scope", "scoped", "style", "tabindex", "title"}
    assert not re.search(r"https?://|url\(|<link|<img|@import", shown)
    assert repr(OBJECTS[name])


@pytest.mark.parametrize("name", OBJECTS)
def test_text_keeps_the_color_of_its_page(name: str) -> None:
    """Light or dark: no text has a color of its own, and no ground is painted under text."""
    shown = OBJECTS[name]._repr_html_()
    for color in re.findall(r"(?<![\w-])color:\s*([^;'\"]+)", shown):
        assert color == "inherit" or (
            color.startswith("#") and color.lower() not in ("#000", "#fff", "#000000", "#ffffff")
        )
    assert not re.search(r"background(-color)?:\s*(white|#fff|#f)", shown)


def test_an_outcome_says_how_it_ended() -> None:
    good = CapturedOutcome(0, spans=(Span("run", 0, 1_500_000),), stdout=b"hello from stdout!\n")
    assert repr(good) == "<CapturedOutcome: exit code 0, ran 1.500 ms, stdout=b'hello from stdout!\\n'>"
    assert "✓" in good._repr_html_() and "hello from stdout!" in good._repr_html_()
    bad = Outcome(None, "deadline", "killed after 5 s")
    assert repr(bad) == "<Outcome: stopped (deadline): killed after 5 s>"
    assert "✗" in bad._repr_html_() and "stdout" not in bad._repr_html_()


def test_long_output_is_cut_at_its_beginning() -> None:
    shown = markup.output("a" * 5000 + "the end")
    assert "the end" in shown and "3,007 characters before" in shown and len(shown) < 2500


def test_a_pod_is_a_dictionary_still() -> None:
    pod = evil_pod()
    assert pod["status"]["phase"] == "Failed" and isinstance(pod, dict)
    assert "exit code 3" in pod._repr_html_() and "restarted 2 times" in pod._repr_html_()
    assert repr(Pod(metadata={"name": "a"}, status={"phase": "Running"})) == "<Pod default/a: Running>"
    assert "not in a cluster" in repr(Pod(metadata={"name": "a"}))


def test_results_show_their_arms() -> None:
    results = load_recorded("figures")
    assert re.fullmatch(r"<Results: [\d,]+ runs, \d+ failed, recorded, .* on .*>", repr(results))
    shown = results._repr_html_()
    arms = {(row["path"], row["engine"], row["mode"], row["workload"]) for row in results.rows}
    assert shown.count("<tr") == 1 + len(arms)
    assert "nan" not in shown and "NA" not in shown
    assert "0 runs" in Results()._repr_html_()


def test_an_inspected_reference_is_one_line_and_not_its_bytes() -> None:
    found = Inspected(REF, DIGEST, "m", {"layers": []}, b"x" * 10_000, "container image", None, "no module")
    assert repr(found) == f"<Inspected {REF}: container image, {DIGEST}, no module>"


def test_a_cluster_that_does_not_answer_says_so(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: a\n"
        "clusters: [{name: a, cluster: {server: 'http://127.0.0.1:1'}}]\n"
        "contexts: [{name: a, context: {cluster: a, user: a}}]\nusers: [{name: a, user: {}}]\n"
    )
    cluster = Cluster(kubeconfig=kubeconfig)
    assert "✗" in cluster._repr_html_() and "no answer" in cluster._repr_html_()
    assert repr(cluster) == f"<Cluster {kubeconfig}>"
