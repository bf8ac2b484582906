"""Sockets of WASIX for wasmtime, as far as a server needs them: a module that serves on wasmer serves here, too.

wasmtime has no sockets that this lab could give to a module: WASI preview 1 can only accept on a socket that the host
opened, which the C API cannot hand over any more, and of WASI 0.2 the C API lacks the switch that allows TCP at all. So
the functions are defined here, on Python's own sockets, with what WASIX calls them and how it passes things. The guest
can listen on the ports it was given and nothing else: connecting is refused, there is no UDP and no name lookup.

Sockets block. A guest reads them by ``sock_recv`` and writes them by ``sock_send``; the preview 1 functions
``fd_read``, ``fd_write`` and ``poll_oneoff`` do not know them, ``fd_close`` does.

References
----------
WASIX, ``wasix_32v1``: ``sock_open``, ``sock_bind``, ``sock_listen``, ``sock_accept_v2``, ``sock_recv``, ``sock_send``,
``sock_shutdown``, ``sock_addr_local``, ``sock_addr_peer``, ``sock_set_opt_flag``, ``_time``, ``_size``.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import wasmtime

MODULE = "wasix_32v1"
# Descriptors of sockets begin where no file of a guest is; a WASI descriptor has 31 bits.
_FIRST = 1 << 24
# A guest that opens and never closes runs into this, and not into what its process may open.
_MOST = 256
_STREAM, _TCP, _ANY_PROTOCOL = 1, 6, 0
_FAMILIES: dict[int, int] = {1: socket.AF_INET, 2: socket.AF_INET6}
_FAMILY_NUMBERS: dict[int, int] = {family: number for number, family in _FAMILIES.items()}
_ADDRESS_BYTES = 20
_PEEK, _WAIT_ALL = 1, 2
_SHUTDOWNS = {1: socket.SHUT_RD, 2: socket.SHUT_WR, 3: socket.SHUT_RDWR}
_RECEIVE_TIMEOUT, _SEND_TIMEOUT, _ACCEPT_TIMEOUT = 19, 20, 22
_MOST_BYTES = 1 << 20
_MOST_SECONDS = 1e6
# WASI's own numbers.
_FAULT, _NOTSUP, _NOTSOCK, _IO = 21, 58, 57, 29
_ERRNO = {
    errno.EACCES: 2,
    errno.EADDRINUSE: 3,
    errno.EADDRNOTAVAIL: 4,
    errno.EAFNOSUPPORT: 5,
    errno.EAGAIN: 6,
    errno.EBADF: 8,
    errno.ECONNABORTED: 13,
    errno.ECONNRESET: 15,
    errno.EINVAL: 28,
    errno.EMFILE: 33,
    errno.ENFILE: 41,
    errno.ENOMEM: 48,
    errno.ENOTCONN: 53,
    errno.ENOTSOCK: _NOTSOCK,
    errno.EOPNOTSUPP: _NOTSUP,
    errno.EPERM: 63,
    errno.EPIPE: 64,
    errno.ETIMEDOUT: 73,
}
# Closing is the one function of preview 1 that has to know sockets. The engine's own insists on being called by an
# instance that has a memory, which no function of the host is.
_CLOSE = f"""
(module
  (import "wasi_snapshot_preview1" "fd_close" (func $file (param i32) (result i32)))
  (import "{MODULE}" "sock_close" (func $socket (param i32) (result i32)))
  (memory (export "memory") 0)
  (func (export "fd_close") (param i32) (result i32)
    (if (result i32) (i32.lt_u (local.get 0) (i32.const {_FIRST}))
      (then (call $file (local.get 0)))
      (else (call $socket (local.get 0))))))
"""


class Sockets:
    """The sockets of one guest.

    Parameters
    ----------
    ports : collection of int
        Those it may listen on; 0 stands for all.
    """

    def __init__(self, ports: Collection[int]) -> None:
        self._ports = frozenset(ports)
        self._open: dict[int, socket.socket] = {}
        self._timeouts: dict[int, dict[int, float | None]] = {}
        self._next = _FIRST

    def define(self, linker: wasmtime.Linker, store: wasmtime.Store) -> None:
        """Define the functions in `linker`, which the module is instantiated with afterwards."""
        import wasmtime

        i32, i64 = wasmtime.ValType.i32, wasmtime.ValType.i64
        functions: tuple[tuple[str, int, Callable[..., int]], ...] = (
            ("sock_open", 4, self._sock_open),
            ("sock_bind", 2, self._sock_bind),
            ("sock_listen", 2, self._sock_listen),
            ("sock_accept", 4, self._sock_accept),
            ("sock_accept_v2", 4, self._sock_accept),
            ("sock_recv", 6, self._sock_recv),
            ("sock_send", 5, self._sock_send),
            ("sock_shutdown", 2, self._sock_shutdown),
            ("sock_addr_local", 2, self._sock_addr_local),
            ("sock_addr_peer", 2, self._sock_addr_peer),
            ("sock_set_opt_flag", 3, self._sock_set_opt_flag),
            ("sock_set_opt_time", 3, self._sock_set_opt_time),
            ("sock_connect", 2, self._sock_connect),
            ("sock_close", 1, self._sock_close),
        )
        for name, count, function in functions:
            signature = wasmtime.FuncType([i32()] * count, [i32()])
            linker.define_func(MODULE, name, signature, _safely(function), access_caller=True)
        size = wasmtime.FuncType([i32(), i32(), i64()], [i32()])
        linker.define_func(MODULE, "sock_set_opt_size", size, lambda caller, *_: 0, access_caller=True)
        closing = wasmtime.Module(linker.engine, bytes(wasmtime.wat2wasm(_CLOSE)))
        close = linker.instantiate(store, closing).exports(store)["fd_close"]
        linker.define(store, "wasi_snapshot_preview1", "fd_close", close)

    def _of(self, fd: int) -> socket.socket:
        found = self._open.get(fd & 0xFFFFFFFF)
        if found is None:
            raise OSError(errno.EBADF if fd & 0xFFFFFFFF >= _FIRST else errno.ENOTSOCK, "no socket")
        return found

    def _add(self, one: socket.socket) -> int:
        if len(self._open) >= _MOST:
            one.close()
            raise OSError(errno.EMFILE, "too many sockets")
        fd = self._next
        self._next += 1
        self._open[fd] = one
        return fd

    def _limit(self, fd: int, one: socket.socket, option: int) -> None:
        one.settimeout(self._timeouts.get(fd & 0xFFFFFFFF, {}).get(option))

    def _sock_open(self, memory: _Memory, family: int, kind: int, protocol: int, at: int) -> int:
        if family not in _FAMILIES or kind != _STREAM or protocol not in (_TCP, _ANY_PROTOCOL):
            return _NOTSUP
        one = socket.socket(_FAMILIES[family], socket.SOCK_STREAM)
        # What was connected to a predecessor lingers; that is no reason to refuse.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        memory.write(at, struct.pack("<I", self._add(one)))
        return 0

    def _sock_bind(self, memory: _Memory, fd: int, at: int) -> int:
        one = self._of(fd)
        if not self._ports:
            return _NOTSUP  # as on an engine that gives no network at all
        address = _unpacked(memory.read(at, _ADDRESS_BYTES), one.family)
        if self._ports.isdisjoint((0, address[1])):
            return _ERRNO[errno.EPERM]
        one.bind(address)
        return 0

    def _sock_listen(self, _memory: _Memory, fd: int, backlog: int) -> int:
        one = self._of(fd)
        if not one.getsockname()[1] and 0 not in self._ports:
            return _ERRNO[errno.EINVAL]  # the kernel would choose a port, which nobody allowed
        one.listen(max(0, min(backlog, socket.SOMAXCONN)))
        return 0

    def _sock_accept(self, memory: _Memory, fd: int, _flags: int, at: int, address_at: int) -> int:
        listener = self._of(fd)
        self._limit(fd, listener, _ACCEPT_TIMEOUT)
        peer, address = listener.accept()
        peer.settimeout(None)
        memory.write(at, struct.pack("<I", self._add(peer)))
        memory.write(address_at, _packed(address, peer.family))
        return 0

    def _sock_recv(
        self, memory: _Memory, fd: int, at: int, count: int, flags: int, size: int, out: int
    ) -> int:
        one = self._of(fd)
        self._limit(fd, one, _RECEIVE_TIMEOUT)
        pieces = memory.pieces(at, count)
        wanted = min(sum(length for _, length in pieces), _MOST_BYTES)
        passed = (socket.MSG_PEEK if flags & _PEEK else 0) | (socket.MSG_WAITALL if flags & _WAIT_ALL else 0)
        data = one.recv(wanted, passed)
        done = 0
        for start, length in pieces:
            memory.write(start, data[done : done + length])
            done += length
        memory.write(size, struct.pack("<I", len(data)))
        memory.write(out, b"\0\0")
        return 0

    def _sock_send(self, memory: _Memory, fd: int, at: int, count: int, _flags: int, size: int) -> int:
        one = self._of(fd)
        self._limit(fd, one, _SEND_TIMEOUT)
        data = b"".join(
            memory.read(start, min(length, _MOST_BYTES)) for start, length in memory.pieces(at, count)
        )
        memory.write(size, struct.pack("<I", one.send(data[:_MOST_BYTES])))
        return 0

    def _sock_shutdown(self, _memory: _Memory, fd: int, how: int) -> int:
        if how not in _SHUTDOWNS:
            return _ERRNO[errno.EINVAL]
        self._of(fd).shutdown(_SHUTDOWNS[how])
        return 0

    def _sock_addr_local(self, memory: _Memory, fd: int, at: int) -> int:
        one = self._of(fd)
        memory.write(at, _packed(one.getsockname(), one.family))
        return 0

    def _sock_addr_peer(self, memory: _Memory, fd: int, at: int) -> int:
        one = self._of(fd)
        memory.write(at, _packed(one.getpeername(), one.family))
        return 0

    def _sock_set_opt_flag(self, _memory: _Memory, fd: int, _option: int, _value: int) -> int:
        """Nothing that a guest can switch would change what it may do, and it need not know that nothing happens."""
        self._of(fd)
        return 0

    def _sock_set_opt_time(self, memory: _Memory, fd: int, option: int, at: int) -> int:
        self._of(fd)
        some, nanoseconds = struct.unpack("<B7xQ", memory.read(at, 16))
        seconds = nanoseconds / 1e9 if some else None
        self._timeouts.setdefault(fd & 0xFFFFFFFF, {})[option] = (
            min(seconds, _MOST_SECONDS) if seconds else None
        )
        return 0

    def _sock_connect(self, _memory: _Memory, fd: int, _at: int) -> int:
        self._of(fd)
        return _ERRNO[errno.EPERM]

    def _sock_close(self, _memory: _Memory, fd: int) -> int:
        self._of(fd).close()
        del self._open[fd & 0xFFFFFFFF]
        self._timeouts.pop(fd & 0xFFFFFFFF, None)
        return 0


class _Memory:
    """The calling guest's memory, whose bounds are checked."""

    def __init__(self, caller: Any) -> None:
        self._caller = caller
        self._memory = caller["memory"]

    def read(self, at: int, size: int) -> bytes:
        at, size = at & 0xFFFFFFFF, size & 0xFFFFFFFF
        self._check(at, size)
        return bytes(self._memory.read(self._caller, at, at + size))

    def write(self, at: int, data: bytes) -> None:
        at &= 0xFFFFFFFF
        self._check(at, len(data))
        if data:
            self._memory.write(self._caller, data, at)

    def pieces(self, at: int, count: int) -> list[tuple[int, int]]:
        """The (offset, length) of an array of ``iovec``, whose lengths lie inside the memory."""
        raw = self.read(at, 8 * min(count & 0xFFFFFFFF, 1024))
        found = list(struct.iter_unpack("<II", raw))
        for start, length in found:
            self._check(start, length)
        return found

    def _check(self, at: int, size: int) -> None:
        if at + size > self._memory.data_len(self._caller):
            raise IndexError


def _safely(function: Callable[..., int]) -> Callable[..., int]:
    """Let every failure be a number of WASI's, for the guest to read."""

    def called(caller: Any, *arguments: int) -> int:
        try:
            return function(_Memory(caller), *arguments)
        except TimeoutError:
            return _ERRNO[errno.ETIMEDOUT]
        except OSError as error:
            return _ERRNO.get(error.errno or 0, _IO)
        except (IndexError, KeyError):
            return _FAULT

    return called


def _unpacked(raw: bytes, family: int) -> tuple[str, int]:
    """``__wasi_addr_port_t``: family, padding, port in the guest's order, address."""
    number, port = struct.unpack_from("<BxH", raw)
    if _FAMILIES.get(number) != family:
        raise OSError(errno.EINVAL, "the address is of another family than the socket")
    size = 4 if family == socket.AF_INET else 16
    return socket.inet_ntop(family, raw[4 : 4 + size]), port


def _packed(address: Any, family: int) -> bytes:
    host, port = address[0].partition("%")[0], address[1]
    # What wasmer writes: the port of an address that is told to the guest is in network order.
    raw = (
        struct.pack("<Bx", _FAMILY_NUMBERS[family]) + struct.pack(">H", port) + socket.inet_pton(family, host)
    )
    return raw.ljust(_ADDRESS_BYTES, b"\0")
