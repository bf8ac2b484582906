"""Tidy rows and the files they are kept in. One row is one run.

Columns
-------
run_id : session and number of the run, unique across pooled files
session : when the measurement began and a random tail
block : number of the randomized block
warmup : the run belongs to the warm-up (`wasmlab.bench.warmup`): kept, but not summarized
path, engine, engine_version, mode, workload, module_digest : the arm, exactly
ok, error, exit_code : a failed run stays, with what went wrong
first_byte_ns : from asking (local: the request; node: the API write begins) to the first byte of output
total_ns : from asking to knowing the end (local: the outcome; node: Succeeded seen by a watch)
process_ns, import_ns, ... run_ns, teardown_ns : durations of the engine's phases (`wasmlab.bench.phases`)
api_write_ns, scheduled_ns, ... status_observed_ns : moments of a pod, since its API write began
started_at : UTC, ISO 8601
fingerprint : id of the environment (`wasmlab.bench.environment`)
experiment, load : of a scale experiment (`wasmlab.bench.scale`): ``burst``, ``density`` or ``concurrency``, and its N.
    The mode then names both (``burst-300``), so that the arm stays exact
begun_ns : of a scale experiment: when this run was asked for, since the first one of its kind and N was
node_uss_bytes, node_pss_bytes, plane_uss_bytes, plane_pss_bytes : of density: private and proportional memory of the
    node (agent, zygotes, workers of Pods) and of the control plane, when `load` Pods were alive

A Parquet file carries the whole fingerprint, the conditions and the plan in its schema metadata; a JSON file beside it
says the same to those without a Parquet reader.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wasmlab import markup
from wasmlab.bench import noise, pooling
from wasmlab.bench.environment import describe, now_utc
from wasmlab.bench.phases import ENGINE_PHASES, POD_MOMENTS
from wasmlab.errors import BenchmarkError
from wasmlab.paths import atomic_write

if TYPE_CHECKING:
    import pandas as pd

_TEXT = (
    "run_id",
    "session",
    "path",
    "engine",
    "engine_version",
    "mode",
    "workload",
    "module_digest",
    "error",
    "started_at",
    "fingerprint",
    "experiment",
)
_TIMES = (
    "first_byte_ns",
    "total_ns",
    *(f"{phase}_ns" for phase in ENGINE_PHASES),
    *(f"{moment}_ns" for moment in POD_MOMENTS if moment != "first_byte"),
)
COLUMNS = (
    "run_id",
    "session",
    "block",
    "warmup",
    "path",
    "engine",
    "engine_version",
    "mode",
    "workload",
    "module_digest",
    "ok",
    "error",
    "exit_code",
    *_TIMES,
    "started_at",
    "fingerprint",
    "experiment",
    "load",
    "begun_ns",
    "node_uss_bytes",
    "node_pss_bytes",
    "plane_uss_bytes",
    "plane_pss_bytes",
)
_FLAGS = ("ok", "warmup")
# In the order in which arms are compared by eye: engine below engine.
_ARM = ("path", "workload", "mode", "engine")
_METADATA_KEY = b"wasmlab"
_FORMAT = 1


def new_session() -> str:
    """Return a name for one measurement: the time and a random tail."""
    return f"{now_utc()[:19]}Z-{secrets.token_hex(3)}"


@dataclass(repr=False)
class Results:
    """Rows and what is known about how they came to be.

    Attributes
    ----------
    rows : list of dict
        One per run; keys as in `COLUMNS`, missing ones are None.
    environment : dict
        The fingerprint.
    conditions : list of dict
        Load, steal and so on, one entry per measurement that was pooled.
    plan : dict
        Arms, repeats, seed, and whether it was interrupted.
    extra : dict
        Anything else worth keeping (headline figures).
    is_recorded : bool
        It came with the repository and was not measured here; figures then say so.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)
    conditions: list[dict[str, Any]] = field(default_factory=list)
    plan: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    is_recorded: bool = False

    @property
    def frame(self) -> pd.DataFrame:
        """The rows as a DataFrame with the columns of `COLUMNS`."""
        import pandas as pd

        table: dict[str, Any] = {}
        for column in COLUMNS:
            values = [row.get(column) for row in self.rows]
            if column in _TEXT:
                table[column] = pd.Series(values, dtype="object")
            elif column in _FLAGS:
                table[column] = pd.Series([bool(value) for value in values], dtype="bool")
            else:
                table[column] = pd.Series(values, dtype="Int64")
        return pd.DataFrame(table)

    @property
    def failures(self) -> list[dict[str, Any]]:
        """The rows of failed runs."""
        return [row for row in self.rows if not row["ok"]]

    @property
    def where(self) -> str:
        """When and where, in one line: ``"2026-11-24 on 2 cores of ..."``, and whether others used the machine."""
        day = self.conditions[0]["started_at"][:10] if self.conditions else "unknown date"
        line = f"{day} on {describe(self.environment)}"
        busy = noise.busy_before(self.conditions)
        return f"{line}, busy with other work ({busy:.0%} before this)" if busy > noise.BUSY_SHARE else line

    def __repr__(self) -> str:
        mark = "recorded, " if self.is_recorded else ""
        return f"<Results: {len(self.rows):,} runs, {len(self.failures)} failed, {mark}{self.where}>"

    def _repr_html_(self) -> str:
        """Return a table of the arms. Medians without intervals: those are in reports, and take a while."""
        frame = self.frame
        steady = frame[~frame["warmup"]]
        rows = []
        for arm, group in steady.groupby(list(_ARM), dropna=False):
            kept = group[group["ok"]]
            # A double each: percentiles of missing values are missing.
            total, first = (
                kept[name].dropna().astype("float64") / 1e6 for name in ("total_ns", "first_byte_ns")
            )
            times = (total.median(), total.quantile(0.95), first.median())
            shown = ("" if value != value else round(float(value), 3) for value in times)
            rows.append((*arm, len(group), int((~group["ok"]).sum()), *shown))
        header = (*_ARM, "runs", "failed", "median ms", "p95 ms", "first byte ms")
        mark = "recorded, " if self.is_recorded else ""
        left_out = len(frame) - len(steady)
        note = f"{left_out} runs of the warm-up are left out" if left_out else ""
        title = f"{len(self.rows):,} runs, {len(self.failures)} failed, {mark}{self.where}"
        return markup.table(title, header, rows, note)

    def save(self, path: Path) -> Path:
        """Write ``<path>`` (Parquet) and a JSON file beside it that says where and how it was measured.

        Parameters
        ----------
        path : Path
            The Parquet file; directories are made.

        Returns
        -------
        Path
            The same.

        Raises
        ------
        OSError
            If they cannot be written; existing files are then untouched.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        fields = [
            pa.field(
                column, pa.string() if column in _TEXT else pa.bool_() if column in _FLAGS else pa.int64()
            )
            for column in COLUMNS
        ]
        meta = self.meta()
        schema = pa.schema(fields, metadata={_METADATA_KEY: json.dumps(meta).encode()})
        columns = {column: [row.get(column) for row in self.rows] for column in COLUMNS}
        table = pa.table(columns, schema=schema)
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        atomic_write(path, sink.getvalue().to_pybytes(), mode=0o644)
        failed = len(self.failures)
        about = {**meta, "rows": len(self.rows), "failed": failed, "measured": self.where}
        atomic_write(path.with_suffix(".json"), json.dumps(about, indent=2) + "\n", mode=0o644)
        return path

    def meta(self) -> dict[str, Any]:
        """Return everything but the rows, as it goes into files."""
        return {
            "format": _FORMAT,
            "environment": self.environment,
            "conditions": self.conditions,
            "plan": self.plan,
            "extra": self.extra,
        }

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read what `save` wrote.

        Parameters
        ----------
        path : Path
            A Parquet file.

        Returns
        -------
        Results
            What was saved.

        Raises
        ------
        BenchmarkError
            If the file is missing, is no Parquet, or was not written by wasmlab.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowException) as error:
            raise BenchmarkError(
                f"cannot read results from {path}: {error}", remedy="measure with `wasmlab bench`"
            ) from error
        try:
            meta = json.loads((table.schema.metadata or {})[_METADATA_KEY])
        except (KeyError, ValueError):
            raise BenchmarkError(
                f"{path} was not written by wasmlab bench: its schema has no fingerprint",
                remedy="give a file that wasmlab bench wrote",
            ) from None
        if meta["format"] != _FORMAT:
            raise BenchmarkError(
                f"{path} has format {meta['format']}, this wasmlab reads {_FORMAT}", remedy="measure again"
            )
        return cls(table.to_pylist(), meta["environment"], meta["conditions"], meta["plan"], meta["extra"])


def pool(results: Sequence[Results]) -> Results:
    """Put measurements of one environment together.

    A measurement without a cluster goes with one of any cluster on the same machine; two clusters must have the same
    version.

    Parameters
    ----------
    results : sequence of Results
        At least one.

    Returns
    -------
    Results
        All rows, the conditions of each.

    Raises
    ------
    BenchmarkError
        If there are none, if they differ in what matters (`wasmlab.bench.pooling`; the message says in what), or if one
        is there twice.
    """
    if not results:
        raise BenchmarkError("there is nothing to pool", remedy="give at least one results file")
    for one, other in combinations(results, 2):
        found = pooling.differences(one, other)
        if found:
            raise BenchmarkError(
                f"these were not measured in the same environment: {pooling.describe(found)}",
                remedy="summarize them apart, and compare ratios instead of times",
            )
    facts = [one.environment for one in results]
    environment = next((one for one in facts if one.get("kubernetes") is not None), facts[0])
    rows = [row for one in results for row in one.rows]
    if len({row["run_id"] for row in rows}) != len(rows):
        raise BenchmarkError("a measurement would be counted twice", remedy="give each results file once")
    return Results(
        rows,
        environment,
        [entry for one in results for entry in one.conditions],
        {
            "pooled": [one.plan for one in results],
            "interrupted": any(one.plan.get("interrupted") for one in results),
        },
        {key: value for one in results for key, value in one.extra.items()},
    )


def load_all(directory: Path) -> Results:
    """Load and pool every Parquet file of runs in a directory.

    Parameters
    ----------
    directory : Path
        Where `Results.save` wrote.

    Returns
    -------
    Results
        All of them, pooled.

    Raises
    ------
    BenchmarkError
        If there is none, or they must not be pooled.
    """
    files: Iterable[Path] = sorted(Path(directory).glob("*.parquet"))
    found = [Results.load(path) for path in files]
    if not found:
        raise BenchmarkError(f"there are no results in {directory}", remedy="measure with `wasmlab bench`")
    return pool(found)


def load_recorded(name: str = "bench") -> Results:
    """Load the recorded run that comes with the repository, ``data/recorded/<name>.parquet``.

    Figures made of it say so: "recorded <date> on <machine>".

    Parameters
    ----------
    name : str
        ``bench``, ``figures``, ``paths`` or ``scale``.

    Returns
    -------
    Results
        Marked as recorded.

    Raises
    ------
    BenchmarkError
        If it is not there.
    """
    from wasmlab.modules.files import data_dir

    results = Results.load(data_dir("recorded") / f"{name}.parquet")
    results.is_recorded = True
    return results
