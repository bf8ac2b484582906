"""What to run, and how it ended. The types live in `wasmlab.engines.spec`, because engines speak of them too."""

from __future__ import annotations

from wasmlab.engines.spec import CapturedOutcome as CapturedOutcome
from wasmlab.engines.spec import Outcome as Outcome
from wasmlab.engines.spec import Preopen as Preopen
from wasmlab.engines.spec import RunSpec as RunSpec
from wasmlab.engines.spec import Span as Span
from wasmlab.engines.spec import dumps as dumps
