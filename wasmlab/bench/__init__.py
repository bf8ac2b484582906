"""Measure what it costs to start and run WASM: plans, runs, rows, intervals.

Modules
-------
phases       names of the phases, and the waterfall table made of spans (pure)
plan         arms, randomized blocks, seeds (pure)
stats        medians, percentiles, ratios, bootstrap intervals (pure)
environment  the fingerprint of the machine, and the load while measuring
store        tidy rows to and from Parquet
runner       carries out a plan: progress, failures as rows, Ctrl-C keeps what there is
local        path "local": a module in the sandbox, no cluster
pods         path "node": a module as a Pod, observed through the API
control      path "control": native processes, measured in the same run
figures      the headline numbers of ``make bench``
"""
