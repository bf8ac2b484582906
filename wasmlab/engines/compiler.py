"""The compile child: ``python -m wasmlab.engines.compiler ENGINE VERSION MODULE OUT KEY [VARIANT]``.

Compiles in a process of its own because a compiler given a hostile module may eat memory or time, and because the
caller must stay free of the engine's threads. Prints one JSON object: the files it wrote below OUT (each with size and
SHA-256), or the error.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
from pathlib import Path

from wasmlab import engines
from wasmlab.engines.cache import _COMPILE_MEMORY_BYTES
from wasmlab.engines.laps import Laps
from wasmlab.errors import PrerequisiteError, WasmlabError


def compile_to(
    engine_name: str, version: str, module: Path, out: Path, key: str, variant: str
) -> dict[str, object]:
    """Compile `module` and write the results below `out`, synced to disk."""
    engine = engines.get(engine_name)
    if engine.version != version:
        # Its code under the other's key would be refused, or worse, run, whenever that key is looked up.
        raise PrerequisiteError(
            f"the compile child found {engine_name} {engine.version}, its caller uses {version}",
            remedy="give both the same HOME, XDG_CACHE_HOME and WASMLAB_WASMER",
        )
    # Importing and making the engine is part of this process's start, not of reading or compiling.
    engine.prepare(out)
    laps = Laps()
    wasm = module.read_bytes()
    laps("read")
    compiled = engine.compile(wasm, key, variant, laps)
    files = {}
    for name, content in compiled.files.items():
        path = out / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as stream:
            stream.write(content)
            stream.flush()
            # A rename that survives a power cut must not name a file that did not.
            os.fsync(stream.fileno())
        files[name] = [len(content), hashlib.sha256(content).hexdigest()]
    return {"artifact": compiled.artifact, "files": files, "spans": [list(span) for span in laps.spans]}


def main() -> None:
    """Entry point."""
    engine, version, module, out, key, *rest = sys.argv[1:]
    # Not address space: engines reserve it by the terabyte. Data is what they really fill.
    resource.setrlimit(resource.RLIMIT_DATA, (_COMPILE_MEMORY_BYTES, _COMPILE_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The engine's own chatter must not get into the answer.
    answer_fd = os.dup(1)
    os.dup2(2, 1)
    try:
        answer = compile_to(engine, version, Path(module), Path(out), key, rest[0] if rest else "")
    except WasmlabError as error:
        answer = {
            "error": type(error).__name__,
            "message": error.message,
            "remedy": error.remedy,
            "context": {name: value for name, value in error.context.items() if isinstance(value, str | int)},
        }
    except OSError as error:
        answer = {
            "error": "PrerequisiteError",
            "message": f"cannot write the compiled code: {error.strerror}",
            "remedy": "free some disk space, or set XDG_CACHE_HOME to another disk",
        }
    os.write(answer_fd, json.dumps(answer).encode())
    # wasmer's threads abort the process if the interpreter is finalised under them.
    os._exit(0)


if __name__ == "__main__":
    main()
