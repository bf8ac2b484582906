"""A guest's standard streams. The types live in `wasmlab.engines.stdio`, because adapters are given them."""

from __future__ import annotations

from wasmlab.engines.stdio import HEADER as HEADER
from wasmlab.engines.stdio import STDERR as STDERR
from wasmlab.engines.stdio import STDOUT as STDOUT
from wasmlab.engines.stdio import Stdio as Stdio
from wasmlab.engines.stdio import write_frame as write_frame
