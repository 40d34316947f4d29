"""Parquet tables of anybody's making, as rows of plain data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raft_core.reading.files import Unreadable, excerpt, open_regular

if TYPE_CHECKING:
    import pyarrow as pa

MOST_ROWS = 50_000_000
MOST_COLUMNS = 5_000
BATCH = 64  # rows; a row may hold pictures


def parquet_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file; dates and times come as texts.

    Args:
        columns: only these; all of them by default.

    Raises:
        OSError: there is no such file, or it may not be read.
        Unreadable: it is no Parquet file, damaged, or holds values that no program can show; names the column.
    """
    import pyarrow.parquet as pq

    with open_regular(Path(path)) as source:
        try:
            with pq.ParquetFile(source) as file:
                _require_bounded(file)
                for batch in file.iter_batches(batch_size=BATCH, columns=None if columns is None else list(columns)):
                    values = {name: _plain(batch.column(name), name) for name in batch.schema.names}
                    for row in range(batch.num_rows):
                        yield {name: column[row] for name, column in values.items()}
        except (Unreadable, MemoryError):
            raise
        except GeneratorExit:
            raise
        except Exception as error:  # noqa: BLE001 - a damaged file makes Arrow raise whatever it trips over
            raise Unreadable(f"it cannot be read as Parquet: {excerpt(error, 200)}") from None


def parquet_kinds(path: Path) -> dict[str, str]:
    """The columns of a Parquet file, and what each holds in Arrow's words: ``string``, ``int64``, ``timestamp[us]``.

    Raises:
        OSError: there is no such file, or it may not be read.
        Unreadable: it is no Parquet file, or damaged.
    """
    import pyarrow.parquet as pq

    with open_regular(Path(path)) as source:
        try:
            with pq.ParquetFile(source) as file:
                _require_bounded(file)
                return {field.name: str(field.type) for field in file.schema_arrow}
        except Unreadable:
            raise
        except Exception as error:  # noqa: BLE001 - as in ``parquet_rows``
            raise Unreadable(f"it cannot be read as Parquet: {excerpt(error, 200)}") from None


def _require_bounded(file: Any) -> None:
    names = list(file.schema_arrow.names)
    if repeated := sorted({name for name in names if names.count(name) > 1} if len(names) <= MOST_COLUMNS else ()):
        raise Unreadable(f"it has the column {excerpt(repeated[0], 40)!r} twice")
    for what, count, most in (("rows", file.metadata.num_rows, MOST_ROWS), ("columns", len(names), MOST_COLUMNS)):
        if count > most:
            raise Unreadable(f"it has {count} {what}, and at most {most} are read")


def _plain(column: pa.Array, name: str) -> list[Any]:
    """The values of a column. Python's dates end in the year 9999, and begin in the year 1; those of Arrow do not."""
    import pyarrow as pa

    try:
        if pa.types.is_temporal(column.type):
            column = column.cast(pa.string())
        return column.to_pylist()
    except Exception as error:  # noqa: BLE001 - as above: overflows, texts that are not UTF-8, unknown time zones
        words = excerpt(f"{type(error).__name__}: {error}", 160)
        column_name = f"{excerpt(name, 40)!r} ({column.type})"
        raise Unreadable(f"its column {column_name} holds values that cannot be read: {words}") from None
