"""Engines examined by running a module on each."""

from __future__ import annotations

from wasmlab import engines
from wasmlab.engines import wasmtime_runner
from wasmlab.sandbox import report


def test_doctor_runs_every_engine_for_real():
    wasmtime_runner.build()
    reports = report.doctor()
    assert [one.name for one in reports] == ["wasmtime", "wasmer", "wasmtime-runner"]
    for one in reports:
        assert one.works, one.reason
        assert one.version
        assert set(one.lacks) == set(engines.get(one.name).capabilities.lacks())


def test_doctor_tells_why_an_engine_does_not_work(monkeypatch):
    engine = engines.get("wasmer")
    monkeypatch.delitem(vars(engine), "version", raising=False)
    monkeypatch.setattr(report, "_EXPECTED", b"something else")
    found = report.examine("wasmer")
    assert not found.works
    assert "b'ok\\n'" in found.reason
    assert found.remedy
