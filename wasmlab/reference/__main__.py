"""``python -m wasmlab.reference [--check] [DIRECTORY]``: write what of docs comes from the code, or compare it."""

from __future__ import annotations

import sys
from pathlib import Path

from wasmlab import reference


def main(words: list[str]) -> int:
    """Return the exit code: 1 if pages are out of date and were only to be checked."""
    names = [word for word in words if not word.startswith("-")]
    directory = Path(names[0]) if names else Path("docs")
    if "--check" in words:
        old = reference.stale(directory)
        for name in old:
            print(f"{directory / name} is out of date; try: python -m wasmlab.reference", file=sys.stderr)
        return 1 if old else 0
    for path in reference.write(directory):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
