"""Rows of cells as text, Markdown, LaTeX or CSV; the first column reads left, numbers read right."""

import csv
import io
import re
from collections.abc import Sequence

FORMATS = ("table", "markdown", "latex", "csv")
Cell = str | int | float | None
_LATEX = str.maketrans({c: "\\" + c for c in "&%$#_{}"} | {"\\": r"\textbackslash{}"})


def render(header: Sequence[str], rows: Sequence[Sequence[Cell]], format: str = "table") -> str:
    """The table in one of FORMATS, without a final newline."""
    if format == "csv":
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([["" if cell is None else cell for cell in row] for row in rows])
        return out.getvalue().rstrip("\n")
    cells = [[_text(cell) for cell in row] for row in rows]
    right = [all(_reads_right(row[i]) for row in rows) for i in range(len(header))]
    if format == "markdown":
        escaped = [[cell.replace("|", "\\|") for cell in row] for row in cells]
        rule = ["---:" if r else "---" for r in right]
        return "\n".join("| " + " | ".join(row) + " |" for row in [list(header), rule, *escaped])
    if format == "latex":
        lines = [" & ".join(cell.translate(_LATEX) for cell in row) + r" \\" for row in cells]
        head = " & ".join(name.translate(_LATEX) for name in header) + r" \\"
        spec = "".join("r" if r else "l" for r in right)
        body = "\n".join(["\\toprule", head, "\\midrule", *lines, "\\bottomrule"])
        return f"\\begin{{tabular}}{{{spec}}}\n{body}\n\\end{{tabular}}"
    widths = [max(len(row[i]) for row in [list(header), *cells]) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if r else cell.ljust(width)
            for cell, width, r in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in [list(header), *cells]
    )


def _reads_right(cell: Cell) -> bool:
    return cell is None or isinstance(cell, int | float) or bool(re.fullmatch(r"<?[\d.]+", cell))


def _text(cell: Cell) -> str:
    if cell is None:
        return "–"  # noqa: RUF001 - the usual sign for "cannot be told"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}"
    return printable(str(cell))


def number(count: int, noun: str) -> str:
    """A count and its noun: "1 row", "2,000 rows"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def size_text(num_bytes: int) -> str:
    """A number of bytes for people, in the unit that fits: "1.2 GB", "1 byte"."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= size:
            return f"{num_bytes / size:,.1f} {unit}"
    return number(num_bytes, "byte")


def printable(text: str) -> str:
    """`text` without what would end the line or move the cursor: ids are somebody else's."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
