"""``containerd-shim-wasm-v1``: what containerd runs. Standard library only, and as little of it as can be.

``start`` (and ``delete``) ask the node's zygote and print its answer. containerd waits for this process each time, so
what is not imported here is saved at every pod.

Environment: ``WASMLAB_SHIM_DIR`` (where the zygote lives; default ``/run/wasmlab/shim``), ``WASMLAB_SHIM_ENGINE``,
``WASMLAB_SHIM_CACHE``, ``WASMLAB_SHIM_PYTHON`` (the interpreter that has wasmlab).
"""

import _socket
import os

PROTOCOL = "1"
DEFAULT_DIR = "/run/wasmlab/shim"
START_TIMEOUT_S = 60.0
_VALUED = ("namespace", "address", "publish-binary", "id", "bundle", "socket", "debug-socket")


def parse(argv):
    """Return (flags, action): Go's flag syntax, one or two dashes, ``-flag value`` or ``-flag=value``."""
    flags, action, at = {}, "", 0
    while at < len(argv):
        word = argv[at]
        at += 1
        if not word.startswith("-"):
            action = word
            break
        name, equals, value = word.lstrip("-").partition("=")
        if name in _VALUED and not equals:
            value = argv[at] if at < len(argv) else ""
            at += 1
        flags[name] = value
    return flags, action


def ask(directory, fields):
    """Ask the zygote in `directory`; return its answer (raises OSError if nobody is there)."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        sock.settimeout(START_TIMEOUT_S)
        sock.connect(directory + "/zygote.sock")
        sock.sendall("\0".join((PROTOCOL, *fields)).encode())
        parts = []
        while True:
            part = sock.recv(65536)
            if not part:
                break
            parts.append(part)
    finally:
        sock.close()
    answer = b"".join(parts)
    if not answer:
        raise ConnectionResetError("the zygote hung up without an answer")
    return answer


def start_zygote(directory, python):
    """Start the zygote, once however many ask; return when it answers."""
    import fcntl
    import select

    os.makedirs(directory, mode=0o700, exist_ok=True)
    lock = os.open(directory + "/start.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        ask(directory, ("ping",))
        return
    except OSError:
        pass
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            if os.fork():
                os._exit(0)
            null = os.open(os.devnull, os.O_RDONLY)
            log = os.open(directory + "/shim.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            # containerd waits until nobody holds this process's output.
            for fd, target in ((null, 0), (log, 1), (log, 2)):
                os.dup2(fd, target)
            os.set_inheritable(write, True)
            kept = ("PATH", "HOME", "LANG", "XDG_CACHE_HOME", "PYTHONPATH", "LD_LIBRARY_PATH")
            # Its own settings and marks stay visible in /proc, so that whoever started containerd finds it again.
            env = {k: v for k, v in os.environ.items() if k in kept or k.startswith("WASMLAB_")}
            argv = [python, "-m", "wasmlab.shim.zygote", "--dir", directory, "--ready-fd", str(write)]
            for option, name in (("--engine", "WASMLAB_SHIM_ENGINE"), ("--cache", "WASMLAB_SHIM_CACHE")):
                if os.environ.get(name):
                    argv += [option, os.environ[name]]
            os.chdir("/")
            os.execve(python, argv, env)
        finally:
            os._exit(127)
    os.close(write)
    os.waitpid(pid, 0)
    ready, _, _ = select.select([read], [], [], START_TIMEOUT_S)
    if not ready or os.read(read, 16) != b"ready":
        with open(directory + "/shim.log", "rb") as stream:
            tail = b"\n".join(stream.read()[-2000:].splitlines()[-8:]).decode(errors="replace")
        raise OSError("the shim's zygote did not start in " + directory + "; its log ends:\n" + tail)


def say(text):
    """Write an error for containerd's log and the user's event."""
    os.write(2, (text + "\n").encode())


def bootstrap_version(raw):
    """Return "3" if stdin holds the BootstrapParams of containerd 2.3 and later (field 4: its version), else "2"."""
    at, seen = 0, set()
    while at < len(raw):
        tag = raw[at]
        at += 1
        if tag & 7 == 2:
            length = shift = 0
            while at < len(raw):
                byte = raw[at]
                at += 1
                length |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
            at += length
        elif tag & 7 == 0:
            while at < len(raw) and raw[at] >= 128:
                at += 1
            at += 1
        else:
            return "2"
        seen.add(tag >> 3)
    # An Any (containerd 1.x puts the runtime's options here) has only the fields 1 and 2.
    return "3" if 4 in seen or 5 in seen else "2"


def main(argv, python, program, root=""):
    """Do what containerd asks; return the exit code."""
    flags, action = parse(argv)
    if root:
        os.environ["PYTHONPATH"] = root + (
            ":" + os.environ["PYTHONPATH"] if os.environ.get("PYTHONPATH") else ""
        )
    if "v" in flags or "version" in flags:
        os.execv(python, [python, "-m", "wasmlab.shim.info", "version", program])
    if "info" in flags:
        os.execv(python, [python, "-m", "wasmlab.shim.info", "info", program])
    directory = os.environ.get("WASMLAB_SHIM_DIR") or DEFAULT_DIR
    identity = flags.get("id", "")
    if not identity or action not in ("start", "delete"):
        say("usage: " + program + " -namespace NS -address ADDRESS -id ID [-bundle DIR] start|delete")
        return 2
    if action == "start":
        engine = program.removeprefix("containerd-shim-").removesuffix("-v1")
        raw = b""
        while True:
            part = os.read(0, 65536)
            if not part:
                break
            raw += part
        fields: tuple = (
            "start",
            identity,
            flags.get("namespace", ""),
            os.getcwd(),
            flags.get("address", ""),
            os.environ.get("TTRPC_ADDRESS", ""),
            "" if engine == "wasm" else engine,
            bootstrap_version(raw) if raw else "2",
        )
    else:
        fields = ("delete", identity, flags.get("bundle") or os.getcwd())
    try:
        try:
            answer = ask(directory, fields)
        except OSError:
            start_zygote(directory, python)
            answer = ask(directory, fields)
    except OSError as error:
        say(str(error))
        return 1
    if answer[:1] != b"0":
        say(answer[1:].decode(errors="replace"))
        return 1
    os.write(1, answer[1:])
    return 0
