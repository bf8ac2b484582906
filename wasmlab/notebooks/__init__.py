"""The notebooks of the lab: what they must look like, what they use, and how they are executed into reports."""

from __future__ import annotations
