"""What runs on this machine, what does not, why, and what to do about it."""

from wasmlab.doctor.checks import Finding, check

__all__ = ["Finding", "check"]
