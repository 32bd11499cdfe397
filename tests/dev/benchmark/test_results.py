import re

import pandas as pd
import pytest

from tests.support.benchmark_rows import growing, row, table
from tools.dev.benchmark import presets, report
from tools.dev.benchmark.cases import Case, Contender, Task, grid, merge_tasks
from tools.dev.benchmark.cases import parse_image as parse
from tools.dev.benchmark.detectors import Cost
from tools.dev.benchmark.goals import SETTINGS, verdicts
from tools.dev.benchmark.growth import fit_growth, growth_points, plot_growth
from tools.dev.benchmark.results import MEMORY, RATIO, read_csv, write_csv

LINEAR = growing('batch', [1, 4, 16], [0.1, 0.4, 1.6], [10, 40, 160])
SQUARE = growing('anchors', [100, 1000], [0.01, 1.0], [1.0, 10.0])
REFERENCE = growing('batch', [1, 16], [0.5, 8.0], [20, 320], contender='mmdet')


def test_csv_keeps_every_row(tmp_path):
    exact = dict(ratio=0.5, value=0.25, spread=0.5)
    alone = dict(row('one_stage'), **dict.fromkeys(RATIO))
    rows = [*LINEAR, row(groups='head_loss;settings', dtype='bf16', **exact), alone]
    about = dict(machine='Some CPU: 2 cores', versions='torch 9')
    write_csv(tmp_path / 'speed.csv', table(*rows), about)
    found, found_about = read_csv(tmp_path / 'speed.csv')
    pd.testing.assert_frame_equal(found, table(*rows), check_dtype=False)
    assert found_about == about
    assert [path.name for path in tmp_path.iterdir()] == ['speed.csv']


def test_read_csv_refuses_a_foreign_file(tmp_path):
    path = tmp_path / 'other.csv'
    path.write_text('a,b\n1,2\n')
    with pytest.raises(ValueError, match=r'other\.csv has no column .*median'):
        read_csv(path)


def test_read_csv_completes_a_file_that_is_older_than_a_field(tmp_path):
    old = table(row()).drop(columns='shapes')
    old.to_csv(tmp_path / 'old.csv', index=False)
    pd.testing.assert_frame_equal(read_csv(tmp_path / 'old.csv')[0], table(row()))


def test_fit_growth_returns_factors_and_exponents():
    factors, exponents = fit_growth(
        growth_points(table(*LINEAR), 'batch', 'consistent')
    )
    assert factors['total'] == pytest.approx(16)
    assert exponents['total'] == pytest.approx(1)
    points = growth_points(table(*SQUARE), 'anchors', 'consistent')
    _, exponents = fit_growth(points)
    assert exponents['total'] == pytest.approx(2)
    assert exponents[MEMORY] == pytest.approx(1)
    assert growth_points(table(*LINEAR), 'anchors', 'consistent').empty


def test_growth_points_are_those_of_one_device():
    cuda = [dict(r, device='cuda', median=9.0) for r in LINEAR]
    points = growth_points(table(*LINEAR), 'batch', 'consistent')
    assert points['total'].to_dict() == {1: 0.1, 4: 0.4, 16: 1.6}
    both = table(*LINEAR, *cuda)
    assert growth_points(both, 'batch', 'consistent').equals(points)
    both = table(*cuda, *LINEAR)
    assert set(growth_points(both, 'batch', 'consistent')['total']) == {9.0}


def test_targets_are_judged_by_ratio_exponent_and_cost():
    costs = [
        Cost('retinanet', 'mmdet', 1000, 10),
        Cost('retinanet', 'consistent', 1009, 10),
        Cost('ssd', 'mmdet', 1000, 10),
        Cost('ssd', 'consistent', 1011, 10),
    ]
    rows = [
        row(ratio=0.45, spread=0.02),
        row(ratio=0.52, spread=0.10, threads=2),
        row(ratio=0.7, detector='ssd'),
        row(ratio=0.9, part=MEMORY),
        row(ratio=1.02, groups='train_step', workload='train_step'),
        row(ratio=1.005, groups='inference', workload='inference'),
        row('one_stage', ratio=9.0),
        *LINEAR,
        *REFERENCE,
        *SQUARE,
    ]
    found = {what: rest for what, _, *rest in verdicts(table(*rows), costs)}
    head = 'RetinaNet: head loss'
    assert found == {
        f'{head}, forward + backward (threads: 1)': ['0.45× (0.44–0.46)', 'met'],
        f'{head}, forward + backward (threads: 2)': [
            '0.52× (0.47–0.57)',
            'not met, within noise',
        ],
        'SSD: head loss, forward + backward (threads: 1)': [
            '0.70× (0.70–0.70)',
            'not met',
        ],
        f'{head}, peak memory (threads: 1)': ['0.90×', 'met'],
        'RetinaNet: training step (threads: 1)': ['1.02× (1.02–1.02)', 'not met'],
        'RetinaNet: inference (threads: 1)': ['1.00× (1.00–1.00)', 'met'],
        'RetinaNet: parameters': ['+0.90 %', 'met'],
        'SSD: parameters': ['+1.10 %', 'not met'],
        'RetinaNet: time, 1 → 16 images per batch': ['size^1.00 (mmdet: 1.00)', 'met'],
        'RetinaNet: memory, 1 → 16 images per batch': [
            'size^1.00 (mmdet: 1.00)',
            'met',
        ],
        'RetinaNet: time, 100 → 1,000 anchors': ['size^2.00', 'not met'],
        'RetinaNet: memory, 100 → 1,000 anchors': ['size^1.00', 'met'],
    }


def test_settings_with_targets_of_their_own_are_judged():
    setting = dict(groups='settings', ratio=0.7)
    rows = [
        row(**setting, classes=1),
        row(**setting, classes=3, part=MEMORY),
        row(**setting, ground_truths=200),
        row(**setting, detector='ssd', ground_truths=200),
        row(**setting, detector='ssd', batch=8),
    ]
    assert verdicts(table(*rows), []) == [
        (f'{name} (threads: 1)', limit, '0.70× (0.70–0.70)', verdict)
        for name, limit, verdict in (
            ('RetinaNet: head loss, 1 class', '≤ 0.80×', 'met'),
            ('SSD: head loss, 200 ground truths', '≤ 0.60×', 'not met'),
        )
    ]


@pytest.mark.parametrize('fields', [fields for fields, *_ in SETTINGS])
def test_every_setting_with_a_target_is_measured(fields):
    assert any(
        all(getattr(case, name) == value for name, value in fields.items())
        for case in presets.SETTINGS
    )


def table_rows(text):
    lines = [line for line in text.splitlines() if line.startswith('|')]
    return [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]


def test_section_shows_each_case_with_its_contenders():
    rows = []
    for batch, factor in ((1, 1), (2, 3)):
        for name, ratio in (('mmdet', 1.0), ('consistent', 0.25)):
            for part, value in (('forward', 0.02), ('backward', 0.01), ('total', 2.0)):
                rows.append(row(name, part, ratio, 0.1, factor * value, batch=batch))
            rows.append(row(name, MEMORY, ratio, value=80 * ratio, batch=batch))
    paragraphs = report.section(table(*rows), 'head_loss')
    assert paragraphs[0] == '## Head loss'
    assert [p[:25] for p in paragraphs[1::2]] == [
        f'RetinaNet, {batch} × 512x512 pi' for batch in (1, 2)
    ]
    assert table_rows(paragraphs[4])[3] == [
        'consistent', '60 ms', '30 ms', '6 s', '0.25× (0.23–0.28)', '20.0 MB', '0.25×',
    ]  # fmt: skip
    assert report.section(table(*rows), 'train_step') == []


def test_growth_section_names_the_pictures_that_are_drawn(tmp_path):
    rows = table(*LINEAR, *REFERENCE)
    text = '\n'.join(report.growth_section(rows, pictures=True))
    assert '**consistent** | × 16' in text
    assert '× 16 (size^1.00)' in text
    pictures = re.findall(r'!\[.*?\]\((.*?)\)', text)
    written = plot_growth(rows, tmp_path)
    assert [path.name for path in written] == pictures == ['speed_batch.png']
    assert written[0].read_bytes()[:4] == b'\x89PNG'


def test_merge_tasks_measures_each_case_once():
    first, second = Case(batch=1), Case(batch=2)
    ours, cascade, reference = map(Contender, ('consistent', 'cascade', 'mmdet'))
    tasks = merge_tasks(
        [
            Task(first, (reference, ours), ('a',)),
            Task(second, (reference,), ('a',)),
            Task(first, (reference, cascade), ('b',), effort=3.0),
        ]
    )
    assert tasks == [
        Task(first, (reference, ours, cascade), ('a', 'b'), effort=3.0),
        Task(second, (reference,), ('a',)),
    ]


def test_grid_returns_every_combination():
    cases = grid(Case(), image=[(8, 16), (32, 32)], batch=[1, 2])
    assert [(c.height, c.width, c.batch) for c in cases] == [
        (8, 16, 1), (8, 16, 2), (32, 32, 1), (32, 32, 2),
    ]  # fmt: skip


def test_impossible_values_are_refused():
    assert parse('640') == (640, 640)
    assert parse('800x1333') == (800, 1333)
    with pytest.raises(ValueError, match="got '8x8x8'"):
        parse('8x8x8')
    with pytest.raises(ValueError, match='batch must be at least 1, got 0'):
        Case(batch=0)
    with pytest.raises(ValueError, match="dtype must be one of fp32, bf16, got 'fp8'"):
        Case(dtype='fp8')


def test_times_shows_no_spread_where_there_is_none():
    assert report.times(table(row(ratio=0.5)).iloc[0]) == '0.50×'
    spread = table(row(ratio=0.5, spread=0.2)).iloc[0]
    assert report.times(spread) == '0.50× (0.40–0.60)'
