"""The lab's figures. One style, colors that stay apart for color-blind readers, titles that say what was measured.

Every function takes `Results` (`wasmlab.bench.store`), returns a matplotlib `Figure`, and puts on the figure when,
where and how often it was measured; data that came with the repository is marked "recorded".

The figures belong to no pyplot state, so that a notebook shows each one once: where it is the value of a cell.
"""

from wasmlab.plots.burst import burst
from wasmlab.plots.cold_start import cold_start
from wasmlab.plots.execution import execution
from wasmlab.plots.labels import mark_recorded
from wasmlab.plots.phase_map import phase_map
from wasmlab.plots.phases import start_phases
from wasmlab.plots.ratios import control_ratios, engine_ratios
from wasmlab.plots.scale import scale_burst, scale_concurrency, scale_density
from wasmlab.plots.style import ENGINE_COLORS, STYLE, LabFigure, save, style
from wasmlab.plots.waterfall import ORDINARY, pod_waterfall, run_waterfall, where_time_goes

__all__ = [
    "ENGINE_COLORS",
    "ORDINARY",
    "STYLE",
    "LabFigure",
    "burst",
    "cold_start",
    "control_ratios",
    "engine_ratios",
    "execution",
    "mark_recorded",
    "phase_map",
    "pod_waterfall",
    "run_waterfall",
    "save",
    "scale_burst",
    "scale_concurrency",
    "scale_density",
    "start_phases",
    "style",
    "where_time_goes",
]
