"""Problems of a data set: what can be wrong, and how it is reported."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

from ..utils.errors import UserError

# What happens to the object or image if the run goes on without what is bad.
KEPT, OBJECT, IMAGE = 'kept', 'object left out', 'image left out'
# Kind, detail and effect of a problem, if there is one.
Finding = Optional[tuple[str, str, str]]


class DataError(UserError, ValueError):
    """A data set can't be used as it is; the message names files and objects."""


class Problem(NamedTuple):
    """One problem of a data set.

    Attributes:
        file: File that has the problem.
        where: Object or field in the file.
        kind: Short name to count by, such as ``box without area``.
        detail: The value, and what it should be.
        effect: ``KEPT``, ``OBJECT`` or ``IMAGE``.
    """

    file: str
    where: str
    kind: str
    detail: str
    effect: str

    def __str__(self) -> str:
        return f'{self.file}: {self.where}: {self.kind}: {self.detail} ({self.effect})'


def summary(problems: Sequence[Problem], limit: Optional[int] = 10) -> str:
    """Count the problems by kind, then list them.

    Args:
        problems: All problems.
        limit: Number of problems to list; None for all.
    """
    counts = Counter(f'{p.kind} ({p.effect})' for p in problems)
    lines = [f'{count:6d}  {kind}' for kind, count in counts.most_common()]
    lines += [f'  {problem}' for problem in problems[:limit]]
    if limit is not None and limit < len(problems):
        lines.append(f'  … and {len(problems) - limit} more')
    return '\n'.join(lines)


def check_box(box: Sequence[Any], size: Optional[tuple[float, float]]) -> Finding:
    """Check one box.

    Args:
        box: x1, y1, x2, y2 in pixels, as they were read.
        size: Width and height of the image in pixels; None if unknown.
    """
    corners = f'x1, y1, x2, y2 = [{", ".join(map(str, box))}]'
    if not all(is_number(v) for v in box):
        return 'box that is no number', corners, OBJECT
    x1, y1, x2, y2 = box
    if x2 < x1 or y2 < y1:
        return 'inverted box', corners, OBJECT
    if x2 == x1 or y2 == y1:
        return 'box without area', corners, OBJECT
    if size is None:
        return None
    width, height = size
    detail = f'{corners} in an image of {width:g} × {height:g}'
    if x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
        return 'box outside the image', detail, OBJECT
    # One pixel more is a matter of counting from 0 or from 1.
    if x1 < -1 or y1 < -1 or x2 > width + 1 or y2 > height + 1:
        return 'box reaches out of the image', detail, KEPT
    return None


def is_number(value: Any) -> bool:
    """Return whether the value is a finite number (bools and text excluded)."""
    is_real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_real and math.isfinite(value)
