"""What a probe's answers mean, and where it asks."""

from __future__ import annotations

from typing import Any

import pytest

from wasmlab.node.spec import probes
from wasmlab.node.spec.probes import LIVENESS, READINESS, STARTUP, BadTarget, Probe, Tally


def probe(**more: Any) -> Probe:
    made = Probe.of({"livenessProbe": {"exec": {"command": ["x"]}, **more}}, LIVENESS)
    assert made is not None
    return made


def test_the_defaults_are_kubernetes() -> None:
    made = probe()
    assert (made.period_s, made.timeout_s, made.initial_delay_s) == (10.0, 1.0, 0.0)
    assert (made.success_threshold, made.failure_threshold, made.grace_s) == (1, 3, None)
    assert probe(terminationGracePeriodSeconds=0).grace_s == 0.0


def test_each_kind_is_found_by_its_own_name() -> None:
    container = {"startupProbe": {"exec": {}, "periodSeconds": 2}}
    found = Probe.of(container, STARTUP)
    assert found is not None
    assert (found.kind, found.period_s) == ("Startup", 2.0)
    assert Probe.of(container, READINESS) is None
    assert probes.probed(container)
    assert not probes.probed({"lifecycle": {"preStop": {}}})


@pytest.mark.parametrize(
    ("thresholds", "answers", "decisions"),
    [
        ({}, [True], [True]),
        ({}, [False, False, False, False], [None, None, False, False]),
        # One success in between, and the count begins anew.
        ({}, [False, False, True, False, False, False], [None, None, True, None, None, False]),
        ({"successThreshold": 2}, [True, False, True, True], [None, None, None, True]),
        ({"failureThreshold": 1}, [False, True], [False, True]),
    ],
)
def test_it_takes_so_many_in_a_row(
    thresholds: dict[str, int], answers: list[bool], decisions: list[bool | None]
) -> None:
    tally = Tally(probe(**thresholds))
    assert [tally.count(answer) for answer in answers] == decisions


@pytest.mark.parametrize(
    ("now", "due"),
    [(100.0, 110.0), (104.0, 110.0), (110.0, 120.0), (135.0, 140.0)],  # a probe that took 25 s lost two beats
)
def test_the_beat_goes_on_and_missed_beats_are_not_made_up_for(now: float, due: float) -> None:
    assert probes.next_tick(100.0, 10.0, now) == due


def test_ports_by_number_and_by_name() -> None:
    container = {"ports": [{"name": "web", "containerPort": 8080}, {"containerPort": 9}]}
    assert probes.port_of({"port": 80}, container) == 80
    assert probes.port_of({"port": "web"}, container) == 8080
    assert probes.port_of({"port": "81"}, container) == 81
    with pytest.raises(BadTarget, match='port "db" not found'):
        probes.port_of({"port": "db"}, container)
    with pytest.raises(BadTarget, match="invalid port number: 0"):
        probes.port_of({}, container)
    with pytest.raises(BadTarget, match="invalid port number: 70000"):
        probes.port_of({"port": 70000}, container)


@pytest.mark.parametrize(
    ("target", "url"),
    [
        ({"port": 80}, "http://192.0.2.7:80/"),
        ({"port": 80, "path": "healthz?full=1"}, "http://192.0.2.7:80/healthz?full=1"),
        ({"port": 443, "scheme": "HTTPS", "host": "example.org", "path": "/x"}, "https://example.org:443/x"),
        ({"port": 80, "host": "::1"}, "http://[::1]:80/"),
    ],
)
def test_urls(target: dict[str, Any], url: str) -> None:
    assert probes.url_of(target, {}, "192.0.2.7") == url


def test_headers() -> None:
    assert dict(probes.headers_of({}, "probe")) == {"User-Agent": "kube-probe/wasmlab", "Accept": "*/*"}
    given = {"httpHeaders": [{"name": "accept", "value": ""}, {"name": "user-agent", "value": "me"}]}
    assert probes.headers_of(given, "lifecycle") == [("user-agent", "me")]


def test_a_command_sees_only_the_plain_values() -> None:
    container = {
        "env": [
            {"name": "A", "value": "1"},
            {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        ]
    }
    assert probes.command_of({"command": ["$(A)", "$(S)", "$$(A)"]}, container) == ["1", "$(S)", "$(A)"]
