import pytest

from tests.support.benchmark_rows import row, table
from tools.dev.benchmark.compare import compare, regressions
from tools.dev.benchmark.results import MEMORY


def verdict(old, new, **options):
    changes = compare(
        table(row(ratio=old, **options)), table(row(ratio=new, **options))
    )
    [word] = changes['verdict']
    return word


@pytest.mark.parametrize(
    ('old', 'new', 'expected'),
    [(0.5, 0.6, 'slower'), (0.5, 0.4, 'faster'), (0.5, 0.52, 'same'), (1, 1, 'same')],
)
def test_compare_judges_steady_measurements_by_the_floor(old, new, expected):
    assert verdict(old, new) == expected


def test_compare_widens_the_noise_band_with_the_spread():
    assert verdict(0.5, 0.6, spread=0.02) == 'slower'
    assert verdict(0.5, 0.6, spread=0.4) == 'same'
    # More repetitions make the same spread more certain.
    assert verdict(0.5, 0.6, spread=0.15, repetitions=9) == 'same'
    assert verdict(0.5, 0.6, spread=0.15, repetitions=200) == 'slower'


def test_compare_judges_memory_in_its_own_words_and_a_narrower_band():
    assert verdict(0.50, 0.52, part=MEMORY) == 'larger'
    assert verdict(0.50, 0.48, part=MEMORY) == 'smaller'
    assert verdict(0.500, 0.505, part=MEMORY) == 'same'


def test_compare_takes_common_rows_only_and_puts_the_worst_first():
    old = table(
        row(ratio=0.5),
        row(ratio=0.5, batch=4),
        row(ratio=0.5, batch=8),
        row('mmdet', ratio=1.0),
    )
    new = table(
        row(ratio=0.6),
        row(ratio=0.9, batch=4),
        row(ratio=0.1, batch=16),
        row('mmdet', ratio=1.0, value=99.0),
    )
    changes = compare(old, new)
    assert changes['batch'].tolist() == [4, 2]
    assert changes['factor'].tolist() == pytest.approx([1.8, 1.2])
    assert regressions(changes).equals(changes)


def test_slower_machine_is_not_slower_code():
    old, new = row(ratio=0.5, value=0.1), row(ratio=0.5, value=1.0)
    assert regressions(compare(table(old), table(new))).empty
