"""Make a module that nobody has seen before out of one that is known."""

from __future__ import annotations

import secrets

from wasmlab.modules.module import Module

_NAME = b"wasmlab.salt"


def salted(module: Module, salt: bytes | None = None) -> Module:
    """Return `module` with a custom section at its end: it does the same, and has another digest.

    So it is in no compile cache and on no node, and a start of it is cold without anybody emptying a cache that others
    use. Engines skip custom sections they do not know.

    Parameters
    ----------
    salt : bytes, optional
        At most 64 bytes; 16 random ones by default.
    """
    salt = secrets.token_bytes(16) if salt is None else salt[:64]
    content = bytes([len(_NAME)]) + _NAME + salt
    return Module(module.data + b"\0" + bytes([len(content)]) + content, name=module.name)
