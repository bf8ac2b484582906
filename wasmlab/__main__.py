"""``python -m wasmlab``: the same as the ``wasmlab`` command, for whoever has no scripts on the PATH."""

from __future__ import annotations

from wasmlab.cli import main

if __name__ == "__main__":
    main()
