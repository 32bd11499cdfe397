"""Problems of a data set: what can be wrong, and how it is reported."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

from ..utils.errors import UserError
from .kinds import Finding, finding


class DataError(UserError, ValueError):
    """A data set can't be used as it is. The message names files and objects."""


class Problem(NamedTuple):
    """One problem of a data set.

    Attributes:
        file: File that has the problem.
        where: Object or field in the file.
        kind: Short name to count by, such as ``box without area``.
        detail: The value, and what it should be.
        effect: One of the constants in :mod:`.kinds`, such as ``OBJECT``.
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


def check_box(
    box: Sequence[Any], size: Optional[tuple[float, float]], text: str = ''
) -> Finding:
    """Check one box.

    Args:
        box: x1, y1, x2, y2 in pixels, as mmdet reads them.
        size: Width and height of the image in pixels; None if unknown.
        text: The box as the file has it, for the message.
    """
    corners = text or f'x1, y1, x2, y2 = [{", ".join(map(str, box))}]'
    if not all(is_number(v) for v in box):
        return finding('box that is no number', corners)
    x1, y1, x2, y2 = box
    if x2 < x1 or y2 < y1:
        return finding('inverted box', corners)
    if x2 == x1 or y2 == y1:
        return finding('box without area', corners)
    if size is None:
        return None
    width, height = size
    detail = f'{corners} in an image of {width:g} × {height:g}'
    if x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
        return finding('box outside the image', detail)
    # One pixel more is a matter of counting from 0 or from 1.
    if x1 < -1 or y1 < -1 or x2 > width + 1 or y2 > height + 1:
        return finding('box reaches out of the image', detail)
    return None


def check_classes(names: Sequence[str], classes: Sequence[str], every: bool) -> Finding:
    """Check that mmdet's labels mean the classes of the config.

    mmdet gives the label i to the i-th category of the file that is a class, whatever
    place its name has among the classes.

    Args:
        names: Names of the file's categories, in its order.
        classes: Class names of the config.
        every: Whether each class must be there, as for an evaluation. Otherwise the
            last ones may be missing: they don't move the labels of the others.
    """
    if isinstance(classes, str):
        detail = f'classes={classes!r} is a text; write classes=({classes!r},)'
        return finding('labels of other classes', detail)
    known = [name for name in names if name in classes]
    if known == list(classes):
        return None
    absent = [str(name) for name in classes if name not in known]
    if known and not every and known == list(classes[: len(known)]):
        return finding('class without a category', f'no category {_listed(absent)}')
    shown = f'classes=({_listed(classes)}), but the categories are ({_listed(names)})'
    twice = [name for name, count in Counter(known).items() if count > 1]
    if twice:
        why = f'the name {twice[0]!r} is there twice; merge or rename its categories'
    elif absent:
        why = f'no {_listed(absent)}; spell it as in the file, or add the category'
    else:
        why = f"write the classes in the file's order, ({_listed(known)})"
    return finding('labels of other classes', f'{shown}: {why}')


def _listed(names: Sequence[Any], limit: int = 20) -> str:
    return ', '.join(map(str, names[:limit])) + (', …' if len(names) > limit else '')


def is_number(value: Any) -> bool:
    """Return whether the value is a finite number (bools and text excluded)."""
    is_real = isinstance(value, (int, float)) and not isinstance(value, bool)
    try:
        return is_real and math.isfinite(value)
    except OverflowError:  # an integer beyond float64
        return False


def as_flag(value: Any) -> int:
    """Return 1 for a true value in any notation (``1.0``, ``'true'``), else 0."""
    text = str(value).strip().lower()
    try:
        return int(abs(float(text)) > 0)
    except ValueError:
        return int(text in ('true', 'yes', 't', 'y'))
