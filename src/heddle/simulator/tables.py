"""Tables of text on disk, plain or compressed: rows that know their line."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Literal, TypeVar, cast

T = TypeVar("T")

_PACKED: dict[str, Callable[[Path, Literal["rb"]], object]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


class TableError(ValueError):
    """A file that cannot be understood; the message names file, line and what is wrong."""


def lines(path: Path) -> Iterator[str]:
    """The lines of a text file; ``.gz``, ``.bz2`` and ``.xz`` are read as they are.

    Raises:
        TableError: it cannot be read.
    """
    opener = _PACKED.get(path.suffix, Path.open)
    try:
        with cast("BinaryIO", opener(path, "rb")) as file:
            yield from io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    except (OSError, EOFError, UnicodeDecodeError, lzma.LZMAError) as error:
        raise TableError(f"{path}: cannot be read: {error}") from error


class Row(Mapping[str, str]):
    """A row of a table with a header; what it lacks or holds wrongly raises with its line."""

    __slots__ = ("_cells", "line", "path")

    def __init__(self, path: Path, line: int, cells: Mapping[str, str]) -> None:
        self.path, self.line, self._cells = path, line, cells

    def __getitem__(self, column: str) -> str:
        return self._cells[column]

    def __iter__(self) -> Iterator[str]:
        return iter(self._cells)

    def __len__(self) -> int:
        return len(self._cells)

    def fault(self, message: str) -> TableError:
        """An error that names this row."""
        return TableError(f"{self.path}:{self.line}: {message}")

    def read(self, column: str, parse: Callable[[str], T], default: T | None = None) -> T:
        """A cell as something else; an empty or missing one is the default.

        Raises:
            TableError: it is no such thing, or empty without a default.
        """
        text = self._cells.get(column, "")
        if text == "":
            if default is None:
                raise self.fault(f"{column} is empty; give a value")
            return default
        try:
            return parse(text)
        except ValueError as error:
            raise self.fault(f"{column}: {text!r} is not valid: {error}") from error


def table(path: Path, needs: tuple[str, ...], *, header: tuple[str, ...] | None = None) -> Iterator[Row]:
    """Rows of comma-separated values.

    Args:
        path: the file.
        needs: columns that must be there.
        header: names of the columns; None = the first line says.

    Raises:
        TableError: a column is missing, or a row has too few cells.
    """
    rows = csv.reader(lines(path))
    try:
        names = header or tuple(cell.strip() for cell in next(rows, ()))
        missing = [name for name in needs if name not in names]
        if missing:
            raise TableError(f"{path}: has no column {', '.join(missing)}; it has: {', '.join(names) or 'nothing'}")
        for cells in rows:
            if not cells:
                continue
            if len(cells) != len(names):
                raise TableError(f"{path}:{rows.line_num}: has {len(cells)} cells; the header has {len(names)}")
            yield Row(path, rows.line_num, dict(zip(names, map(str.strip, cells), strict=True)))
    except csv.Error as error:
        raise TableError(f"{path}:{rows.line_num}: {error}") from error


def whole(text: str) -> int:
    """A whole number of 0 or more, also where it is written as 8.0."""
    value = float(text)
    if value < 0 or value != int(value):
        raise ValueError("give a whole number from 0")
    return int(value)


def seconds(text: str) -> float:
    """Seconds of 0 or more."""
    value = float(text)
    if not 0 <= value < 1e15:
        raise ValueError("give 0 seconds or more")
    return value
