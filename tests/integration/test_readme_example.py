"""The Python example of the README is what people copy first: it has to run as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration


def test_the_example_prints_what_the_module_says(repository: Path) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```", (repository / "README.md").read_text(), re.M | re.S)
    done = subprocess.run(
        [sys.executable, "-c", example],
        cwd=repository,
        env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split("\n")) - {""} == {"hello from stdout!", "hello from stderr!", "Args are: []"}
