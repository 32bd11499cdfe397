"""What can be wrong with a data set, and how it is told."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

from ..utils.errors import UserError

# What happens to the object or image when a run goes on ("drop").
KEPT, OBJECT, IMAGE = 'kept', 'object left out', 'image left out'


class DataError(UserError, ValueError):
    """A data set can't be used as it is; the message names files and objects."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        kind: A short name to count by, such as ``box without area``.
        file: The file in which it is wrong.
        where: The object or field in the file.
        detail: The value, and what it should be.
        effect: ``KEPT``, ``OBJECT`` or ``IMAGE``.
    """

    kind: str
    file: str
    where: str
    detail: str
    effect: str = OBJECT

    def __str__(self) -> str:
        return f'{self.file}: {self.where}: {self.kind}: {self.detail} ({self.effect})'


def summary(problems: Sequence[Problem], limit: Optional[int] = 10) -> str:
    """Count by kind, then name each.

    Args:
        problems: What was found.
        limit: Name at most so many; None for all.
    """
    counts = Counter((p.kind, p.effect) for p in problems)
    lines = [
        f'{count:6d}  {kind} ({effect})'
        for (kind, effect), count in counts.most_common()
    ]
    shown = problems if limit is None else problems[:limit]
    lines += [f'  {problem}' for problem in shown]
    if len(shown) < len(problems):
        lines.append(f'  … and {len(problems) - len(shown)} more')
    return '\n'.join(lines)


def check_box(
    box: Sequence[Any], size: Optional[tuple[float, float]]
) -> Optional[tuple[str, str, str]]:
    """Judge one box.

    Args:
        box: x1, y1, x2, y2 in pixels, as they were read.
        size: Width and height of the image in pixels; None if unknown.

    Returns:
        Kind, detail and effect of what is wrong, or None.
    """
    shown = f'[{", ".join(map(str, box))}]'
    if not all(is_number(v) for v in box):
        return 'box that is no number', f'x1, y1, x2, y2 = {shown}', OBJECT
    x1, y1, x2, y2 = (float(v) for v in box)
    if x2 < x1 or y2 < y1:
        return 'inverted box', f'x1, y1, x2, y2 = {shown}', OBJECT
    if x2 == x1 or y2 == y1:
        return 'box without area', f'x1, y1, x2, y2 = {shown}', OBJECT
    if size is None:
        return None
    width, height = size
    detail = f'x1, y1, x2, y2 = {shown} in an image of {width:g} × {height:g}'
    if x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
        return 'box outside the image', detail, OBJECT
    # A pixel more is a matter of counting from 0 or 1.
    if x1 < -1 or y1 < -1 or x2 > width + 1 or y2 > height + 1:
        return 'box reaches out of the image', detail, KEPT
    return None


def is_number(value: Any) -> bool:
    """A finite number, and neither text nor True."""
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and math.isfinite(value)
    )
