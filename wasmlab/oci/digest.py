"""Content digests (``sha256:<hex>``): check their form, compute them, compare content with them.

References
----------
OCI image specification, descriptor.md, section "Digests".
"""

from __future__ import annotations

import hashlib
import hmac
import re

from wasmlab.errors import DigestMismatch, OCIError, SizeMismatch

_FORM = re.compile(r"(?P<algorithm>sha256|sha384|sha512):(?P<hex>[0-9a-f]+)")
_HEX_LENGTH = {"sha256": 64, "sha384": 96, "sha512": 128}


def is_digest(text: str) -> bool:
    """Say whether `text` is a digest of a supported algorithm, in its canonical lower case."""
    match = _FORM.fullmatch(text)
    return match is not None and len(match["hex"]) == _HEX_LENGTH[match["algorithm"]]


def of_bytes(data: bytes) -> str:
    """Return the sha256 digest of `data`."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def mismatch(what: str, expected: str, actual: str) -> DigestMismatch:
    """Return the error for a registry that names another digest than it should."""
    return DigestMismatch(
        f"{what} should have the digest {expected}, the registry says {actual}",
        remedy="try again; if it stays, the registry or a proxy on the way alters content: do not use it",
        expected=expected,
        actual=actual,
    )


class Verifier:
    """Takes content piece by piece and says at the end whether it was the announced content.

    Parameters
    ----------
    digest : str
        The expected digest.
    size_bytes : int or None
        The expected size; None if nobody announced one.
    what : str
        What is being read, for messages.

    Raises
    ------
    OCIError
        If `digest` is not a supported digest.
    """

    def __init__(self, digest: str, size_bytes: int | None, what: str) -> None:
        if not is_digest(digest):
            raise OCIError(
                f"{what} has the digest {digest!r}, which is not a sha256, sha384 or sha512 digest",
                remedy="push the artifact again with a current client",
            )
        self.digest = digest
        self.size_bytes = size_bytes
        self.what = what
        self.seen_bytes = 0
        self._algorithm = digest.partition(":")[0]
        self._hash = hashlib.new(self._algorithm)

    def update(self, chunk: bytes) -> None:
        """Take the next piece.

        Raises
        ------
        SizeMismatch
            As soon as there is more content than announced, so that a lying registry cannot fill the disk.
        """
        self.seen_bytes += len(chunk)
        if self.size_bytes is not None and self.seen_bytes > self.size_bytes:
            raise self._size_error(self.seen_bytes, "more than")
        self._hash.update(chunk)

    def finish(self) -> None:
        """Compare.

        Raises
        ------
        SizeMismatch
            If content is missing (the transfer was cut).
        DigestMismatch
            If the content is not what the digest says.
        """
        if self.size_bytes is not None and self.seen_bytes != self.size_bytes:
            raise self._size_error(self.seen_bytes, "only")
        actual = f"{self._algorithm}:{self._hash.hexdigest()}"
        if not hmac.compare_digest(actual, self.digest):
            raise DigestMismatch(
                f"{self.what} should have the digest {self.digest} but the content received has {actual}",
                remedy="pull again; if it stays, the registry or a proxy on the way alters content: do not use it",
                expected=self.digest,
                actual=actual,
            )

    def _size_error(self, actual: int, how: str) -> SizeMismatch:
        return SizeMismatch(
            f"{self.what} should have {self.size_bytes} bytes, received {how} {actual}",
            remedy="pull again; if it stays, the blob is damaged in the registry: push it again",
            expected=self.size_bytes,
            actual=actual,
        )
