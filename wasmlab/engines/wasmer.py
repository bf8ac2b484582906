"""wasmer, by its SDK (PyPI ``wasmer-sdk``): what it has is used, what it lacks is said, or made up for honestly.

The SDK is an asynchronous client with threads of its own, so it is imported in the zygote (that starts no thread) and
started in the idle worker. It hides the steps from loading to running, has no host directories, no memory limit and no
host descriptors. Hence:

* memory limit: the maximum in the module itself is lowered before it is compiled (`module_limits`), which is exact;
* read-only directories: their files are copied into the guest's private file system (which it may write, to no effect);
* writable directories: `Unsupported`;
* stdio: the SDK's streams are pumped to and from the descriptors as bytes come, so that output leaves while the guest
  runs.
* compiling ahead: the SDK compiles when it starts a command. Asking it to start one with an argument that no WASI
  program may have (it holds a NUL) makes it compile, store the code, and refuse: no guest code runs.
"""

from __future__ import annotations

import asyncio
import functools
import os
import re
import resource
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wasmlab.engines.base import Capabilities, Compiled, GuestResult, exit_code_of, package_version, trap_kind
from wasmlab.engines.common import DEADLINE_NOTE, NO_START, refuse_other_than_core, refused
from wasmlab.engines.laps import Laps
from wasmlab.engines.module_limits import initial_bytes, with_memory_limit
from wasmlab.engines.stdio import STDERR, STDOUT, write_frame
from wasmlab.errors import InvalidModule, Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import wasmer_sdk

    from wasmlab.engines.spec import RunSpec, Span
    from wasmlab.engines.stdio import Stdio

# (module (memory (export "memory") 1) (func (export "_start"))): what a worker rehearses with. It makes the SDK start
# its threads and its runtime, which would otherwise cost the guest 10 ms.
_NOOP = bytes.fromhex(
    "0061736d01000000010401600000030201000503010001071302066d656d6f72790200065f737461727400000a040102000b"
)
_COPY_LIMIT_BYTES = 64 << 20
_COPY_LIMIT_ENTRIES = 20_000
_CHUNK_BYTES = 64 * 1024
# What the SDK itself may need on top, and its in-memory file system with it: the backstop, not the limit.
_HOST_SLACK_BYTES = 256 << 20
_MOST_MEMORY_BYTES = 4 << 30
_NEARLY_ALL = 0.9

_CAPABILITIES = Capabilities(
    directories=False,
    components=False,
    stream_order=False,
    phases=False,
    fuel=False,
    listens=False,
    zero_timeouts=False,
    argv0=False,
    notes={
        "directories": "wasmer-sdk 0.5 cannot show the guest a host directory for writing; use engine wasmtime, or "
        "build the native binding (make native)",
        "read_only_dirs": "files are copied in when the run starts (64 MiB at most); the guest may change its copy, "
        "which reaches nobody",
        "memory_limit": "the module's own maximum is lowered before it is compiled, so each limit has its own entry in "
        "the compile cache",
        "components": "wasmer-sdk 0.5 runs core modules only; use engine wasmtime",
        "phases": "the SDK loads, compiles, instantiates and runs in one step: the phase `run` holds them all; the "
        "native binding (make native) tells them apart",
        "argv0": "the SDK allows only letters, digits and -_.+ in argv[0]: other characters become -, directories are "
        "cut off",
        "stream_order": "the SDK collects stdout and stderr apart: lines of one stream keep their order, lines of "
        "different streams written within a millisecond may change places",
        "streaming": "the SDK's streams are copied to the descriptors by the worker",
        "deadline": DEADLINE_NOTE,
        "zero_timeouts": "to the SDK's poll_oneoff a timeout of 0 is none: a sleep of no time lasts for ever",
        "listens": "wasmer-sdk 0.5 gives a guest all of the host's network or none: it cannot be held to its ports",
        "fuel": "wasmer-sdk 0.5 has no metering; use engine wasmtime, or build the native binding (make native)",
    },
    hidden_phases={
        "bind": "the SDK's client, which holds the engine, is made by each idle worker and not in the zygote",
        "validate": "part of `compile`, and in a cold run in a worker of `run`",
        "compile": "part of `run` in a cold run in a worker; compiling ahead is a step of its own",
        "serialize": "part of `compile`, and in a cold run in a worker of `run`: the SDK fills its own cache",
        "instantiate": "part of `run`: the SDK's spawn does both",
    },
)


class WasmerEngine:
    """The adapter."""

    capabilities = _CAPABILITIES
    noop_module = _NOOP

    def __init__(self, name: str = "wasmer") -> None:
        self.name = name
        self.noop: Path | None = None
        self._root: Path | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: wasmer_sdk.Wasmer | None = None
        self.prepared: tuple[Span, ...] = ()

    @functools.cached_property
    def version(self) -> str:
        """Version of the package ``wasmer-sdk``, and that it is that: no result may hide it."""
        return f"sdk {package_version('wasmer-sdk')}"

    @property
    def _folder(self) -> str:
        return f"wasmer-{self.version.replace(' ', '-')}"

    def settings(self) -> dict[str, str]:
        """Compile settings (part of the cache key); the SDK offers none."""
        return {"binding": "sdk", "compiler": "cranelift"}

    def check(self, spec: RunSpec) -> None:
        """Raise `Unsupported` for writable directories, for sockets and for fuel."""
        if spec.fuel is not None:
            raise Unsupported(
                f"wasmer cannot limit fuel: {_CAPABILITIES.notes['fuel']}",
                remedy="run it on engine wasmtime, or give it a deadline",
                capability="fuel",
            )
        if spec.listen:
            raise Unsupported(
                f"wasmer cannot let the module listen: {_CAPABILITIES.notes['listens']}",
                remedy="run it on engine wasmtime, or build the native binding (make native)",
                capability="listens",
            )
        for one in spec.preopens:
            if not one.read_only:
                raise Unsupported(
                    f"wasmer cannot give the guest {one.guest} for writing: {_CAPABILITIES.notes['directories']}",
                    remedy="mount it read-only, or run it on engine wasmtime",
                    capability="directories",
                )

    def variant(self, spec: RunSpec) -> str:
        """The memory limit is compiled in."""
        return "" if spec.memory_bytes is None else f"memory={spec.memory_bytes}"

    def validate(self, wasm: bytes) -> None:
        """Raise `InvalidModule` if the SDK refuses the module."""
        refuse_other_than_core(wasm, _CAPABILITIES.notes["components"])
        loop = asyncio.new_event_loop()
        loop.run_until_complete(self._load_only(wasm))

    async def _load_only(self, wasm: bytes) -> None:
        import wasmer_sdk

        try:
            await wasmer_sdk.Wasmer(cache_root=tempfile.gettempdir()).packages.load(wasm)
        except wasmer_sdk.WasmerError as error:
            raise refused("wasmer", error) from error

    def cache_root(self, root: Path) -> Path:
        """Where the SDK keeps its code inside our cache."""
        return root / self._folder

    def compile(self, wasm: bytes, key: str, variant: str = "", laps: Laps | None = None) -> Compiled:
        """Let the SDK compile into a directory of its own and take what it wrote."""
        refuse_other_than_core(wasm, _CAPABILITIES.notes["components"])
        if variant:
            wasm = with_memory_limit(wasm, int(variant.partition("=")[2]))
        with tempfile.TemporaryDirectory(prefix="wasmlab-wasmer-") as scratch:
            asyncio.new_event_loop().run_until_complete(self._compile(wasm, scratch))
            files = {
                f"{self._folder}/{path.relative_to(scratch)}": path.read_bytes()
                for path in Path(scratch).rglob("*.bin")
            }
        if laps is not None:
            laps("compile")
        if not files:
            raise InvalidModule("wasmer compiled the module but stored no code", remedy="use engine wasmtime")
        name = f"{key}.wasm"
        return Compiled(artifact=name, files={name: wasm, **files})

    async def _compile(self, wasm: bytes, scratch: str) -> None:
        import wasmer_sdk

        client = wasmer_sdk.Wasmer(cache_root=scratch)
        try:
            package = await client.packages.load(wasm)
        except wasmer_sdk.WasmerError as error:
            raise refused("wasmer", error) from error
        sandbox = await client.sandboxes.create(packages=[package])
        try:
            await sandbox.command(package, ["\0"]).run(check=False)
        except wasmer_sdk.WasmerError as error:
            if "null byte" not in str(error):
                raise refused("wasmer", error) from error
        else:  # pragma: no cover - a future SDK might allow it; better an error than a guest that ran unasked
            raise InvalidModule(
                "wasmer-sdk ran the module instead of compiling it", remedy="use wasmer-sdk 0.5"
            )

    def prepare(self, cache_root: Path) -> None:
        """Import the SDK and asyncio; starts no thread."""
        laps = Laps()
        import concurrent.futures.thread  # noqa: F401 - asyncio imports it lazily, in every worker

        import wasmer_sdk  # noqa: F401

        laps("import")
        self.prepared = tuple(laps.spans)
        self._root = self.cache_root(cache_root)

    def complete(self) -> None:
        """Nothing more can be made ahead."""

    def warm(self) -> None:
        """Start the SDK; the rehearsal makes it start its threads."""
        import wasmer_sdk

        self._loop = asyncio.new_event_loop()
        self._client = wasmer_sdk.Wasmer(cache_root=self._root)

    def run(
        self,
        artifact: Path,
        spec: RunSpec,
        stdio: Stdio,
        *,
        cold: bool,
        before_guest: Callable[[], None] | None = None,
    ) -> GuestResult:
        """Run a core module; see `Engine.run`."""
        laps = Laps()
        # The SDK prints the reason of a trap to descriptor 2; that is neither the guest's nor ours to show. The
        # guest's own streams are other descriptors here, even if they lead to the same place.
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, 1)
        os.dup2(null, 2)
        os.close(null)
        loop = self._loop or asyncio.new_event_loop()
        return loop.run_until_complete(self._run(artifact, spec, stdio, cold, laps))

    async def _run(self, artifact: Path, spec: RunSpec, stdio: Stdio, cold: bool, laps: Laps) -> GuestResult:
        import wasmer_sdk

        with open(spec.module if cold else artifact, "rb") as stream:
            wasm = stream.read()
        if cold and spec.memory_bytes is not None:
            wasm = with_memory_limit(wasm, spec.memory_bytes)
        if cold:  # else it is no more than a part of finding the code that belongs to it
            laps("read")
        if spec.memory_bytes is not None and (needed := initial_bytes(wasm)) > spec.memory_bytes:
            text = f"the module needs {needed} bytes to start, its limit is {spec.memory_bytes}"
            return laps.ended(None, "out_of_memory", text)
        client = self._client
        if client is None or cold or artifact.parent != (self._root or Path()).parent:
            # A cold run gets a cache of its own, which is empty.
            root = artifact if cold else self.cache_root(artifact.parent)
            client = wasmer_sdk.Wasmer(cache_root=root)
        # The limit itself is in the module. This keeps what the guest makes the SDK hold (files in memory) within
        # bounds; running into it is ugly (the SDK aborts or hangs), but the host keeps its memory.
        _cap_data((spec.memory_bytes or _MOST_MEMORY_BYTES) + _HOST_SLACK_BYTES)
        before = _resident_bytes()
        try:
            name = _command_name(spec.argv[0] if spec.argv else "main")
            package = await client.packages.create(
                wasmer_sdk.PackageDefinition(
                    modules={"module": wasm},
                    commands={name: wasmer_sdk.PackageCommandDefinition("module")},
                    files=_copied_in(spec),
                )
            )
            sandbox = await client.sandboxes.create(packages=[package])
            command = sandbox.command(package, spec.argv[1:], env=dict(spec.env))
            with_input = not _is_null(stdio.stdin)
            laps("load")
            process = await command.spawn(stdin="pipe" if with_input else "closed")
            feeder = asyncio.create_task(_feed(stdio.stdin, process)) if with_input else None
            if stdio.framed:
                await asyncio.gather(
                    _frame(process.stdout, stdio.stdout, STDOUT), _frame(process.stderr, stdio.stdout, STDERR)
                )
            else:
                await asyncio.gather(
                    _drain(process.stdout, stdio.stdout), _drain(process.stderr, stdio.stderr)
                )
            output = await process.wait()
            if feeder is not None:
                feeder.cancel()
            laps("run")
            code, message = exit_code_of(output.exit_code)
            return laps.ended(code, None, message)
        except wasmer_sdk.WasmerError as error:
            laps("run")
            kind, text = _reason(str(error))
            # The peak: by now the SDK has freed the guest's memory.
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
            if (
                spec.memory_bytes
                and kind not in ("link", "invalid_module")
                and grown >= _NEARLY_ALL * spec.memory_bytes
            ):
                text = f"out of memory: about {grown} of {spec.memory_bytes} bytes were in use ({text})"
                kind = "out_of_memory"
            return laps.ended(None, kind, text)


# What else the SDK's texts mean, besides wasmer's trap messages.
_REASONS = (
    ("Insufficient resources", "out_of_memory"),
    ("Error while importing", "link"),
    ("Missing export", "link"),
    ("unable to load package", "invalid_module"),
)


def _reason(text: str) -> tuple[str, str]:
    kind = next((kind for part, kind in _REASONS if part in text), None)
    if kind is None:
        kind = trap_kind(text) or ("trap" if "RuntimeError" in text else "failed")
    if kind == "link" and "_start" in text:
        return kind, NO_START
    first = text.partition("RuntimeError: ")[2] or text
    return kind, " ".join(first.split("\n", 1)[0].split())


def _command_name(argv0: str) -> str:
    # The SDK uses the command's name as argv[0] and is strict about it.
    return re.sub(r"[^A-Za-z0-9._+-]", "-", os.path.basename(argv0)).strip(".") or "main"


def _is_null(fd: int) -> bool:
    info = os.fstat(fd)
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == os.makedev(1, 3)


def _cap_data(extra_bytes: int) -> None:
    """Let this process's data (heap and writable private memory) grow by `extra_bytes` and no more."""
    with open("/proc/self/status", "rb") as stream:
        now = next(int(line.split()[1]) * 1024 for line in stream if line.startswith(b"VmData:"))
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = now + extra_bytes
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _resident_bytes() -> int:
    with open("/proc/self/statm", "rb") as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _copied_in(spec: RunSpec) -> dict[str, Any]:
    files: dict[str, Any] = {}
    total = 0
    for one in spec.preopens:
        for inside, path in _files_of(os.path.realpath(one.host)):
            with open(path, "rb") as stream:
                content = stream.read()
            total += len(content)
            if total > _COPY_LIMIT_BYTES:
                raise Unsupported(
                    f"wasmer would have to copy more than {_COPY_LIMIT_BYTES >> 20} MiB into the guest for "
                    f"{one.guest}",
                    remedy="run it on engine wasmtime",
                    capability="read_only_dirs",
                )
            files[os.path.normpath(os.path.join("/", one.guest, inside))] = content
    return files


def _files_of(root: str) -> Iterator[tuple[str, str]]:
    """(path as the guest is to see it, real path) of every file below `root`.

    Links are followed as far as they stay inside: another guest may have planted one that leads out, or in a circle.
    """
    open_ones = [("", root, frozenset((root,)))]
    looked_at = 0
    while open_ones:
        inside, folder, above = open_ones.pop()
        for entry in sorted(os.listdir(folder)):
            looked_at += 1
            if looked_at > _COPY_LIMIT_ENTRIES:  # links between directories multiply what one sees
                raise Unsupported(
                    f"wasmer would have to copy more than {_COPY_LIMIT_ENTRIES} files into the guest",
                    remedy="run it on engine wasmtime",
                    capability="read_only_dirs",
                )
            path = os.path.realpath(os.path.join(folder, entry))
            if not path.startswith(root.rstrip("/") + "/"):
                continue
            name = os.path.join(inside, entry)
            if os.path.isfile(path):
                yield name, path
            elif os.path.isdir(path) and path not in above:
                open_ones.append((name, path, above | {path}))


async def _drain(stream: Any, fd: int) -> None:
    wanted = True
    async for chunk in stream:
        view = memoryview(chunk if wanted else b"")
        while view:
            try:
                view = view[os.write(fd, view) :]
            except BlockingIOError:
                await asyncio.sleep(0.001)  # the caller gave us a non-blocking descriptor and is slow
            except BrokenPipeError:
                # Nobody reads any more. The SDK cannot tell the guest; not reading would block it for ever.
                wanted = False
                break


async def _frame(stream: Any, fd: int, number: int) -> None:
    async for chunk in stream:
        write_frame(fd, number, chunk)
        # The other stream's turn: what was written some time apart should leave in that order.
        await asyncio.sleep(0)


async def _feed(fd: int, process: Any) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            # In a thread: a read from a terminal or a pipe may take for ever, and epoll does not take files.
            chunk = await loop.run_in_executor(None, os.read, fd, _CHUNK_BYTES)
        except BlockingIOError:
            await asyncio.sleep(0.005)
            continue
        except OSError:
            chunk = b""
        try:
            if not chunk:
                await process.stdin.close()
                return
            await process.stdin.write(chunk)
        except Exception:
            return
