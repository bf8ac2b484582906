"""WASM modules: what is in one, how one is built from C, and the catalogue of those that the lab runs."""

from __future__ import annotations

from wasmlab.modules.module import Module, Section

__all__ = ["Module", "Section"]
