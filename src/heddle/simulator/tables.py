"""Tables of text on disk, plain or compressed: rows that know their line."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO, Literal, TypeVar, cast

T = TypeVar("T")

_PACKED: dict[str, Callable[[Path, Literal["rb", "wb"]], object]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
}


class TableError(ValueError):
    """A file that cannot be understood; the message names file, line and what is wrong."""


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file; ``.gz``, ``.bz2`` and ``.xz`` are read as they are.

    Raises:
        TableError: it cannot be read, also where that turns out later in the block.
    """
    opener = _PACKED.get(path.suffix, Path.open)
    try:
        with cast("BinaryIO", opener(path, "rb")) as file:
            yield file
    except FileNotFoundError as error:
        raise TableError(f"{path}: there is no such file") from error
    except (OSError, EOFError, UnicodeDecodeError, lzma.LZMAError, zlib.error) as error:
        raise TableError(f"{path}: cannot be read: {error}") from error


def lines(path: Path, *, lenient: bool = False) -> Generator[str, None, None]:
    """The lines of a text file in UTF-8, plain or compressed.

    Args:
        path: the file.
        lenient: what is not UTF-8 is read as something else, where letters do not matter.

    Raises:
        TableError: it cannot be read.
    """
    errors = "replace" if lenient else "strict"
    with opened(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", errors=errors, newline="") as text:
        yield from text


def first(path: Path) -> str:
    """The first line that is not empty, without its end; "" = there is none.

    Raises:
        TableError: the file cannot be read.
    """
    with closing(lines(path, lenient=True)) as found:
        return next((line.strip() for line in found if line.strip()), "")


def written(path: Path, data: bytes) -> None:
    """Writes a file, compressed if its name ends so; what was there is replaced."""
    opener = _PACKED.get(path.suffix, Path.open)
    with cast("BinaryIO", opener(path, "wb")) as file:
        file.write(data)


def stem(path: Path) -> str:
    """The name of a file without its endings, also of one that is compressed."""
    return (Path(path.stem) if path.suffix in _PACKED else path).stem


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
        except (ValueError, ArithmeticError) as error:  # decimals overflow in their own way
            raise self.fault(f"{column}: {text!r} is not valid: {error}") from error


def table(path: Path, needs: tuple[str, ...], *, header: tuple[str, ...] | None = None) -> Iterator[Row]:
    """Rows of comma-separated values.

    Args:
        path: the file.
        needs: columns that must be there.
        header: names of the columns; None = the first line says.

    Raises:
        TableError: a column is missing or there twice, or a row has too few cells.
    """
    rows = csv.reader(lines(path))
    try:
        names = header or tuple(cell.strip() for cell in next(rows, ()))
        if twice := sorted({name for name in names if name and names.count(name) > 1}):
            raise TableError(f"{path}:1: column {', '.join(twice)} is there twice; leave one out")
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
    if not 0 <= value < 2**53 or value != int(value):
        raise ValueError("give a whole number from 0")
    return int(value)


def of_a_node(text: str) -> int:
    """GPUs of one node."""
    value = whole(text)
    if value > 1024:
        raise ValueError("give at most 1024 GPUs of one node")
    return value


def seconds(text: str) -> float:
    """Seconds of 0 or more."""
    value = float(text)
    if not 0 <= value < 1e15:
        raise ValueError("give 0 seconds or more")
    return value


_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1, "": 1}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)([dhms]?)")


def span(text: str) -> float:
    """Seconds of a span as people write it: 90, 90s, 2h30m, 1.5d."""
    parts = _SPAN.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text or any(not unit for _, unit in parts[:-1]):
        raise ValueError("write a span of time as 90, 45s, 2h30m or 1.5d")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
