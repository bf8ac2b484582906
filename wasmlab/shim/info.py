"""``-v`` and ``-info`` of the shim."""

from __future__ import annotations

import sys


def version_text(program: str) -> str:
    """Return what ``-v`` prints."""
    from wasmlab import __version__, engines

    lines = [f"{program}:", f"  Version:  {__version__}"]
    for name in engines.names():
        lines.append(f"  {name + ':':<9} {engines.get(name).version}")
    return "\n".join(lines) + "\n"


def runtime_info() -> bytes:
    """Return containerd's RuntimeInfo, serialized."""
    from wasmlab import __version__, engines
    from wasmlab.shim.pb import info_pb2

    info = info_pb2.RuntimeInfo(
        name="io.containerd.wasm.v1", version=info_pb2.RuntimeVersion(version=__version__)
    )
    for name in engines.names():
        info.annotations[f"wasmlab.dev/{name}"] = engines.get(name).version
    return bytes(info.SerializeToString())


def main() -> None:
    """Entry point: ``info`` or ``version``, and the program's name."""
    what, program = sys.argv[1], sys.argv[2]
    if what == "info":
        sys.stdout.buffer.write(runtime_info())
    else:
        sys.stdout.write(version_text(program))


if __name__ == "__main__":
    main()
