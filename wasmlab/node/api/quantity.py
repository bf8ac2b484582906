"""Kubernetes quantities ("64Mi", "500m", "1e3") as integers.

References
----------
``k8s.io/apimachinery/pkg/api/resource/quantity.go``: suffixes and rounding (fractions of a unit are rounded up).
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal

_SUFFIXES = {
    "": Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "E": Decimal(10**18),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}
_FORM = re.compile(r"^([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|([numkMGTPE]|[KMGTPE]i))?$")


def exact(text: str | int | float) -> Decimal:
    """Read a quantity as it is written.

    Raises
    ------
    ValueError
        The text is not a quantity.
    """
    form = _FORM.match(str(text).strip())
    if form is None:
        raise ValueError(f"{text!r} is not a quantity such as 64Mi, 1G or 500m")
    number, exponent, suffix = form.groups()
    return Decimal(number + exponent) if exponent else Decimal(number) * _SUFFIXES[suffix or ""]


def ceil(value: Decimal) -> int:
    """Round up to a whole unit."""
    return int(value.to_integral_value(rounding=ROUND_CEILING))


def milli(text: str | int | float) -> int:
    """Read a quantity in thousandths (of a core), rounding up.

    Raises
    ------
    ValueError
        The text is not a quantity.
    """
    return ceil(exact(text) * 1000)


def parse(text: str | int | float) -> int:
    """Read a quantity, rounding a fraction up to the next whole unit.

    Parameters
    ----------
    text : str or int or float
        As written in a manifest; YAML may have made it a number.

    Returns
    -------
    int
        The value in its base unit (bytes for memory, whole cores for cpu).

    Raises
    ------
    ValueError
        The text is not a quantity.
    """
    return ceil(exact(text))


def text(value: int) -> str:
    """Write an integer as the API does: with the largest binary suffix that leaves a whole number."""
    for suffix in ("Ei", "Pi", "Ti", "Gi", "Mi", "Ki"):
        unit = int(_SUFFIXES[suffix])
        if value and value % unit == 0:
            return f"{value // unit}{suffix}"
    return str(value)
