"""Modules are rebuilt to the same bytes, and a failed build leaves the old file alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from wasmlab.errors import InvalidModule, PrerequisiteError, ProcessError
from wasmlab.modules import build
from wasmlab.modules.files import data_dir
from wasmlab.modules.native import run_on_host


@pytest.fixture(scope="module")
def recorded() -> dict:
    return json.loads((data_dir("wasm") / "DIGESTS.json").read_text())


def test_the_files_are_what_was_recorded() -> None:
    assert build.problems() == []


def test_a_changed_source_or_module_is_noticed(tmp_path: Path) -> None:
    root = tmp_path / "wasm"
    shutil.copytree(data_dir("wasm"), root)
    (root / "hello.c").write_text("int main(void) { return 1; }\n")
    (root / "sort.wasm").unlink()
    (root / "fresh.c").write_text("int main(void) { return 1; }\n")
    (root / "components" / "command.wat").write_text("(component)\n")
    found = "\n".join(build.problems(root))
    assert "hello.c is not what" in found
    assert "sort.wasm is missing" in found
    assert "fresh.c is not in DIGESTS.json" in found
    assert "components/command.wat is not what" in found
    assert found.count("\n") == 3


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["hello", "nbody", "fixtures/readdir"])
def test_rebuilt_elsewhere_it_has_the_same_digest(name: str, tmp_path: Path, recorded: dict) -> None:
    if recorded["compiler"] != build.compiler():
        pytest.skip(f"recorded with {recorded['compiler']}, installed is {build.compiler()}")
    # Another directory and another file name: neither may leave a trace in the binary. The comment keeps the
    # compiler from answering out of its cache.
    source = tmp_path / "some other name.c"
    source.write_text((data_dir("wasm") / f"{name}.c").read_text() + f"\n/* {tmp_path} */\n")
    assert (
        build.compile_c(source, tmp_path / "out.wasm").digest == recorded["modules"][f"{name}.wasm"]["digest"]
    )


@pytest.mark.timeout(300)
def test_a_component_is_rebuilt_to_the_same_digest(tmp_path: Path, recorded: dict) -> None:
    if recorded["compiler"] != build.compiler():
        pytest.skip(f"recorded with {recorded['compiler']}, installed is {build.compiler()}")
    source = tmp_path / "renamed.c"
    source.write_text((data_dir("wasm") / "hello.c").read_text() + f"\n/* {tmp_path} */\n")
    module = build.compile_component(source, tmp_path / "out.wasm")
    assert module.digest == recorded["modules"]["components/hello.wasm"]["digest"]
    assert (tmp_path / "out.wasm").read_bytes() == module.data


@pytest.mark.timeout(300)
def test_a_program_that_wants_more_than_the_component_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidModule, match="path_open") as caught:
        build.compile_component(data_dir("wasm") / "files.c", tmp_path / "out.wasm")
    assert "wasip2.c" in (caught.value.remedy or "") and not (tmp_path / "out.wasm").exists()


def test_a_failed_build_says_why_and_keeps_the_old_module(tmp_path: Path) -> None:
    source, out = tmp_path / "bad.c", tmp_path / "bad.wasm"
    source.write_text("int main(void) { return nonsense; }\n")
    out.write_bytes(b"old")
    with pytest.raises(ProcessError) as caught:
        build.compile_c(source, out)
    assert "nonsense" in caught.value.log_tail
    assert out.read_bytes() == b"old"


def test_a_missing_source(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match="no C source"):
        build.compile_c(tmp_path / "none.c", tmp_path / "none.wasm")


def test_flags_are_passed_on(tmp_path: Path) -> None:
    source = tmp_path / "flag.c"
    source.write_text("int main(void) { return CODE; }\n")
    module = build.compile_c(source, tmp_path / "flag.wasm", flags=["-DCODE=3", "-Wl,-z,stack-size=1048576"])
    assert module.memory_bytes is not None and module.memory_bytes > 1 << 20


def test_run_on_the_host_it_is_no_program(tmp_path: Path) -> None:
    from wasmlab.modules import Module

    answer = run_on_host(Module.from_file(data_dir("wasm", "hello.wasm")))
    if Path("/proc/sys/fs/binfmt_misc/wasm").exists():
        pytest.skip("this kernel has a WASM interpreter registered")
    assert answer == "exec format error"
