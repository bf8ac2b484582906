"""Sandboxes on every adapter, and how to name what they run."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.engines.adapters import ADAPTERS, chosen
from wasmlab.engines import CompileCache
from wasmlab.sandbox import RunSpec, Sandbox
from wasmlab.sandbox.direct import module_spec

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "data" / "wasm" / "fixtures"

SpecFactory = Callable[..., RunSpec]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> CompileCache:
    return CompileCache(tmp_path_factory.mktemp("compiled"))


@pytest.fixture(scope="session")
def spec() -> SpecFactory:
    """spec("exit", "3", memory_bytes=...) -> a RunSpec for a fixture; spec("hello") for the article's program."""

    def make(name: str | Path, *args: str, **options: object) -> RunSpec:
        path = Path(name)
        if not path.suffix:
            path = ROOT / "data" / "wasm" / "hello.wasm" if name == "hello" else FIXTURES / f"{name}.wasm"
        return module_spec(path, (path.name, *args), **options)

    return make


@pytest.fixture(scope="session")
def wat(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Compile the text format to a .wasm file."""
    folder = tmp_path_factory.mktemp("wat")
    made = 0

    def make(text: str) -> Path:
        nonlocal made
        import wasmtime

        made += 1
        path = folder / f"m{made}.wasm"
        path.write_bytes(wasmtime.wat2wasm(text))
        return path

    return make


@pytest.fixture(scope="module", params=ADAPTERS)
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    with chosen(request.param) as name:
        yield name


@pytest.fixture(scope="module")
def sandbox(engine: str, cache: CompileCache) -> Iterator[Sandbox]:
    with Sandbox(engine, cache=cache) as one:
        yield one


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(condition: Callable[[], object], timeout_s: float = 20.0, what: str = "") -> None:
    """Wait for a condition; fail if it does not come."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what or condition}"
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    """Return the child processes of `pid`."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as stream:
                    fields = stream.read().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[1]) == pid and fields[0] != "Z":
                found.append(int(entry))
    return found


def guests(pid: int) -> list[int]:
    """Return the child processes of `pid` in which a module runs: they are named for it before it begins."""
    found = []
    for child in children(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{child}/comm").read_text().startswith("wasm-"):
                found.append(child)
    return found


@pytest.fixture
def helpers() -> type:
    """The functions above, for tests (conftest modules cannot be imported by name)."""

    class Helpers:
        alive = staticmethod(alive)
        until = staticmethod(until)
        children = staticmethod(children)
        guests = staticmethod(guests)
        fixtures = FIXTURES
        root = ROOT

    return Helpers
