import pytest

from tests.dev.benchmark.rows import row
from tools.dev.benchmark.compare import compare, regressions
from tools.dev.benchmark.results import MEMORY


def verdict(old, new, **options):
    (change,) = compare([row(ratio=old, **options)], [row(ratio=new, **options)])
    return change.verdict


@pytest.mark.parametrize(
    ('old', 'new', 'expected'),
    [(0.5, 0.6, 'slower'), (0.5, 0.4, 'faster'), (0.5, 0.52, 'same'), (1, 1, 'same')],
)
def test_verdicts_of_steady_measurements(old, new, expected):
    assert verdict(old, new) == expected


def test_a_wide_spread_widens_the_noise_band():
    assert verdict(0.5, 0.6, spread=0.02) == 'slower'
    assert verdict(0.5, 0.6, spread=0.4) == 'same'
    # More repetitions make the same spread more certain.
    assert verdict(0.5, 0.6, spread=0.15, repetitions=9) == 'same'
    assert verdict(0.5, 0.6, spread=0.15, repetitions=200) == 'slower'


def test_memory_has_its_own_words_and_a_narrow_band():
    assert verdict(0.50, 0.52, part=MEMORY) == 'larger'
    assert verdict(0.50, 0.48, part=MEMORY) == 'smaller'
    assert verdict(0.500, 0.505, part=MEMORY) == 'same'


def test_only_what_both_have_is_compared_and_the_worst_comes_first():
    old = [
        row(ratio=0.5),
        row(ratio=0.5, batch=4),
        row(ratio=0.5, batch=8),
        row('mmdet', ratio=1.0),
    ]
    new = [
        row(ratio=0.6),
        row(ratio=0.9, batch=4),
        row(ratio=0.1, batch=16),
        row('mmdet', ratio=1.0, value=99.0),
    ]
    changes = compare(old, new)
    assert [(c.new.case.batch, round(c.factor, 2)) for c in changes] == [
        (4, 1.8),
        (2, 1.2),
    ]
    assert regressions(changes) == changes


def test_a_slower_machine_is_not_slower_code():
    old, new = row(ratio=0.5, value=0.1), row(ratio=0.5, value=1.0)
    assert regressions(compare([old], [new])) == []
