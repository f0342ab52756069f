"""The tidy frame as a file for other programs."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from bpqp_bench.errors import SpecError


def export_frame(frame: pd.DataFrame, target: Path) -> None:
    """Write the frame as Parquet or CSV, by the file's ending.

    Columns that hold tuples, lists or mappings become JSON text: both formats then hold the same,
    and a column whose type varies from row to row does not break Parquet.

    Raises
    ------
    SpecError
        If the ending is another one.
    """
    flat = frame.copy()
    for name in flat.columns:
        if flat[name].map(lambda value: isinstance(value, (tuple, list, dict))).any():
            flat[name] = flat[name].map(json.dumps)
        elif flat[name].dtype == object and flat[name].map(type).nunique() > 1:
            flat[name] = pd.array(
                [None if pd.isna(value) else str(value) for value in flat[name]], dtype="string"
            )
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == ".parquet":
        flat.to_parquet(target, index=False)
    elif target.suffix == ".csv":
        inert(flat).to_csv(target, index=False, lineterminator="\n")
    else:
        raise SpecError(f"{target} ends neither in .parquet nor in .csv")


def inert(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with texts that a spreadsheet would run as a formula made plain text.

    A text that begins with =, +, -, @, a tab or a line end gets an apostrophe before it; numbers
    stay numbers.
    """
    made = frame.copy()
    for position, name in enumerate(made.columns):
        if not pd.api.types.is_numeric_dtype(made[name]):
            made.isetitem(position, made[name].map(_inert, na_action="ignore").array)
    return made


def _inert(value: object) -> object:
    if not (isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value
