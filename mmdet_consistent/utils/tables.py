"""Markdown tables."""

from collections.abc import Sequence


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Render a Markdown table, padded so that it reads well in a terminal too."""
    lines = [list(header), *[list(row) for row in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    text = [' | '.join(c.ljust(w) for c, w in zip(line, widths)) for line in lines]
    text.insert(1, ' | '.join('-' * w for w in widths))
    return '\n'.join(f'| {line} |' for line in text)
