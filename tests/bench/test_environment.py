from __future__ import annotations

import getpass
import json
import socket
from pathlib import Path

import pytest

from wasmlab.bench import environment
from wasmlab.bench.environment import Conditions


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    (tmp_path / "proc").mkdir()
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "proc/cpuinfo").write_text(
        "processor : 0\nmodel name\t: Intel(R) Xeon(R) CPU @ 2.20GHz\nflags\t: fpu hypervisor\n"
    )
    (tmp_path / "proc/meminfo").write_text("MemTotal:       24576000 kB\n")
    (tmp_path / "proc/loadavg").write_text("1.50 0.70 0.20 2/300 1234\n")
    (tmp_path / "proc/stat").write_text("cpu  100 0 50 800 10 0 5 35 0 0\ncpu0 1 2 3\n")
    return tmp_path


def test_fingerprint_reads_the_machine(machine: Path) -> None:
    facts = environment.fingerprint(kubernetes="v1.37.2", root=machine)
    assert facts["cpu_model"] == "Intel(R) Xeon(R) CPU @ 2.20GHz"
    assert facts["memory_gib"] == 23
    assert facts["virtualization"] == "virtual machine"
    assert facts["cgroup"] == "none"
    assert facts["engines"]["wasmtime"]
    assert facts["kubernetes"] == "v1.37.2"
    assert environment.describe(facts).startswith(f"{facts['cores']} cores of Intel Xeon, 23 GiB, Linux ")


def test_fingerprint_ids_tell_environments_apart(machine: Path) -> None:
    one = environment.fingerprint(root=machine)
    assert one["id"] == environment.fingerprint(root=machine)["id"] == environment.fingerprint_id(one)
    assert environment.fingerprint(kubernetes="v1.37.2", root=machine)["id"] != one["id"]
    (machine / "sys/fs/cgroup/cgroup.controllers").touch()
    assert environment.fingerprint(root=machine)["cgroup"] == "v2"
    assert environment.fingerprint(root=machine)["id"] != one["id"]


def test_it_names_nobody_and_no_host() -> None:
    text = json.dumps(environment.fingerprint())
    for secret in (socket.gethostname(), str(Path.home())):
        assert secret not in text
    assert f'"{getpass.getuser()}"' not in text


def test_conditions_between_two_readings(machine: Path) -> None:
    before = Conditions.read(machine)
    (machine / "proc/stat").write_text("cpu  140 0 60 830 10 0 5 55 0 0\n")
    (machine / "proc/loadavg").write_text("2.50 0.70 0.20 2/300 1234\n")
    what = before.until(Conditions.read(machine))
    assert what["busy_share"] == 0.7
    assert what["steal_share"] == 0.2
    assert (what["load_1min_before"], what["load_1min_after"]) == (1.5, 2.5)
    assert what["cpu_stalled_s"] is None
    assert what["started_at"].endswith("Z")


def test_conditions_with_pressure(machine: Path) -> None:
    (machine / "proc/pressure").mkdir()
    (machine / "proc/pressure/cpu").write_text("some avg10=1.0 avg60=0 avg300=0 total=1000000\n")
    before = Conditions.read(machine)
    (machine / "proc/pressure/cpu").write_text("some avg10=1.0 avg60=0 avg300=0 total=3500000\n")
    assert before.until(Conditions.read(machine))["cpu_stalled_s"] == 2.5


def test_conditions_with_context_switches_and_frequency(machine: Path) -> None:
    stat = machine / "proc/stat"
    stat.write_text(stat.read_text() + "ctxt 5000\n")
    before = Conditions.read(machine)
    assert before.context_switches == 5000 and before.mhz is None
    stat.write_text(stat.read_text().replace("ctxt 5000", "ctxt 9000"))
    for cpu, khz in (("cpu0", 2_000_000), ("cpu1", 3_000_000)):
        directory = machine / f"sys/devices/system/cpu/{cpu}/cpufreq"
        directory.mkdir(parents=True)
        (directory / "scaling_cur_freq").write_text(f"{khz}\n")
    what = before.until(Conditions.read(machine))
    assert what["context_switches_per_s"] > 0
    assert what["mhz"] == 2500


def test_the_frequency_may_be_in_the_processors_table(machine: Path) -> None:
    (machine / "proc/cpuinfo").write_text("cpu MHz\t\t: 2000.500\ncpu MHz\t\t: 2100.500\n")
    assert Conditions.read(machine).mhz == 2050.5


def test_a_kernel_that_says_nothing(tmp_path: Path) -> None:
    reading = Conditions.read(tmp_path)
    what = reading.until(reading)
    assert {key: value for key, value in what.items() if not key.endswith("_at")} == dict.fromkeys(
        (
            "load_1min_before",
            "load_1min_after",
            "busy_share",
            "steal_share",
            "cpu_stalled_s",
            "context_switches_per_s",
            "mhz",
        )
    )


def test_an_unknown_processor(machine: Path) -> None:
    (machine / "proc/cpuinfo").unlink()
    assert environment.fingerprint(root=machine)["cpu_model"]


def test_busy_share_is_that_of_now(machine: Path, monkeypatch) -> None:
    later = "cpu  140 0 60 830 10 0 5 55 0 0\n"
    monkeypatch.setattr(environment.time, "sleep", lambda _: (machine / "proc/stat").write_text(later))
    assert environment.busy_share(root=machine) == 0.7
