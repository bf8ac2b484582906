"""Run the code blocks of a page, in order, as a reader would: one shell, one Python session, one directory.

``console`` blocks: a line that starts with ``$ `` is a command, lines with ``> `` continue it, the lines below are what
it prints (stdout and stderr together), where ``...`` stands for anything. ``python`` blocks run as they are; a comment
``# -> text`` at the end of a line is not compared. Blocks of other kinds are shown, not run. A block whose fence says
``no-run`` is not run either, and says why after it: ``console no-run: needs a cloud``.
"""

from __future__ import annotations

import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One code block: its kind, what its fence says besides, its text, and the line it starts at."""

    kind: str
    remark: str
    text: str
    line: int

    @property
    def runs(self) -> bool:
        """Whether it is to be run."""
        return self.kind in ("console", "python") and "no-run" not in self.remark


def blocks(page: str) -> list[Block]:
    """Return the code blocks of a Markdown page."""
    return [
        Block(found[1], found[2].strip(), found[3], page.count("\n", 0, found.start()) + 2)
        for found in _FENCE.finditer(page)
    ]


def commands(text: str) -> Iterator[tuple[str, str]]:
    """Yield (command, expected output) of a console block."""
    command: list[str] = []
    expected: list[str] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            if command:
                yield "\n".join(command), "\n".join(expected)
            command, expected = [line[2:]], []
        elif line.startswith("> ") and command and not expected:
            command.append(line[2:])
        else:
            assert command, f"output without a command: {line!r}"
            expected.append(line)
    if command:
        yield "\n".join(command), "\n".join(expected)


def matches(expected: str, printed: str) -> bool:
    """Whether `printed` is as expected; ``...`` stands for any text, blanks at line ends do not count."""
    pattern = r"[\s\S]*?".join(re.escape(part) for part in _trimmed(expected).split("..."))
    return re.fullmatch(pattern, _trimmed(printed)) is not None


def _trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())


class Shell:
    """A bash that keeps its directory and variables from command to command."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self._bash = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=directory,
            env=environment,
        )

    def run(self, command: str) -> tuple[int, str]:
        """Return (exit code, output) of a command. pytest's timeout is its deadline."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        mark = f"--{uuid.uuid4().hex}--"
        # What a command leaves in the background must not hold the pipe's text back: the mark ends it.
        self._bash.stdin.write(f"{{ {command}\n}} </dev/null 2>&1; printf '\\n%s %s\\n' {mark} $?\n")
        self._bash.stdin.flush()
        lines: list[str] = []
        for line in self._bash.stdout:
            if line.startswith(mark):
                return int(line.split()[1]), "".join(lines).removesuffix("\n")
            lines.append(line)
        raise AssertionError(f"the shell ended after {command!r}: {''.join(lines)}")

    def close(self) -> None:
        """End the shell."""
        assert self._bash.stdin is not None
        self._bash.stdin.close()
        try:
            self._bash.wait(10)
        finally:
            self._bash.kill()
            self._bash.wait()


def python(text: str, directory: Path, environment: dict[str, str]) -> tuple[int, str]:
    """Run the Python blocks of a page as one program; return (exit code, output)."""
    done = subprocess.run(
        [sys.executable, "-c", text],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
    )
    return done.returncode, done.stdout + done.stderr
