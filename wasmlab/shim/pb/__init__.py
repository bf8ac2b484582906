"""Generated message classes; see ``wasmlab/shim/proto/generate.py``."""
