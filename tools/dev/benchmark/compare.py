"""Changes since an earlier measurement.

Only ratios to mmdet's own head are compared. It ran in the same minutes, so a slower
machine does not look like slower code. Its own times are not judged.
"""

import numpy as np
import pandas as pd

from .cases import REFERENCE
from .results import CASE, MEMORY

# A smaller change of the median is noise, however steady the repetitions.
TIME_FLOOR, MEMORY_FLOOR = 0.05, 0.02


def compare(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Judge every row that both measurements have, the worst change first.

    Returns:
        The new rows with the old columns as ``*_old``, and ``factor`` (new ratio
        divided by the old), ``noise`` (relative change up to which it means nothing)
        and ``verdict``: ``'slower'`` (``'larger'`` for memory), ``'faster'``
        (``'smaller'``) or ``'same'``.
    """
    both = new.merge(old, on=[*CASE, 'contender', 'part'], suffixes=('', '_old'))
    both = both[both['contender'] != REFERENCE].dropna(subset=['ratio', 'ratio_old'])
    memory = both['part'] == MEMORY
    factor = both['ratio'] / both['ratio_old']

    def error(age: str) -> pd.Series:
        # The standard error of a median is about 0.93 times the distance of the
        # quartiles over the square root of the repetitions. Twice that is noise.
        spread = both[f'ratio_q3{age}'] - both[f'ratio_q1{age}']
        return 1.86 * spread / both[f'ratio{age}'] / both[f'repetitions{age}'] ** 0.5

    floor = np.where(memory, MEMORY_FLOOR, TIME_FLOOR)
    noise = np.maximum(floor, np.hypot(error(''), error('_old')))
    worse, better = factor > 1 + noise, factor < 1 / (1 + noise)
    words = {'larger': worse & memory, 'slower': worse, 'smaller': better & memory}
    words['faster'] = better
    verdict = np.select(list(words.values()), list(words), 'same')
    both = both.assign(factor=factor, noise=noise, verdict=verdict)
    return both.sort_values('factor', ascending=False)


def regressions(changes: pd.DataFrame) -> pd.DataFrame:
    """Return the changes for the worse."""
    return changes[changes['verdict'].isin(('slower', 'larger'))]
