import re
from dataclasses import replace

import pytest

from mmdet_consistent.utils.timing import Summary
from tests.dev.benchmark.rows import growing, row
from tools.dev.benchmark import report
from tools.dev.benchmark.cases import Case, Task, grid, merge_tasks, parse_image
from tools.dev.benchmark.cost import Cost
from tools.dev.benchmark.goals import verdicts
from tools.dev.benchmark.growth import fit_growth, growth_points
from tools.dev.benchmark.plots import plot_growth
from tools.dev.benchmark.results import MEMORY, read_csv, write_csv

LINEAR = growing('batch', [1, 4, 16], [0.1, 0.4, 1.6], [10, 40, 160])
SQUARE = growing('anchors', [100, 1000], [0.01, 1.0], [1.0, 10.0])
REFERENCE = growing('batch', [1, 16], [0.5, 8.0], [20, 320], contender='mmdet')


def test_csv_keeps_every_row(tmp_path):
    exact = dict(ratio=0.5, value=0.25, spread=0.5)
    rows = [*LINEAR, row(groups=('head_loss', 'settings'), dtype='bf16', **exact)]
    about = dict(machine='Some CPU: 2 cores', versions='torch 9')
    write_csv(tmp_path / 'speed.csv', rows, about)
    read, read_about = read_csv(tmp_path / 'speed.csv')
    assert read == rows
    assert read_about == about
    assert [path.name for path in tmp_path.iterdir()] == ['speed.csv']


def test_a_foreign_csv_is_refused(tmp_path):
    path = tmp_path / 'other.csv'
    path.write_text('a,b\n1,2\n')
    with pytest.raises(ValueError, match=r'other\.csv: no column .*median'):
        read_csv(path)


def test_growth_exponents():
    fit = fit_growth(growth_points(LINEAR, 'batch', 'consistent'))
    assert fit.time_factor == pytest.approx(16)
    assert fit.time_exponent == pytest.approx(1)
    fit = fit_growth(growth_points(SQUARE, 'anchors', 'consistent'))
    assert fit.time_exponent == pytest.approx(2)
    assert fit.memory_exponent == pytest.approx(1)
    assert growth_points(LINEAR, 'anchors', 'consistent') == []


def test_growth_does_not_mix_devices():
    cuda = [replace(r, case=replace(r.case, device='cuda')) for r in LINEAR]
    points = growth_points(LINEAR, 'batch', 'consistent')
    assert growth_points([*LINEAR, *cuda], 'batch', 'consistent') == points
    assert growth_points([*cuda, *LINEAR], 'batch', 'consistent') == points
    assert len(points) == 3


def test_targets_are_judged():
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
        row(ratio=1.02, groups=('train_step',), workload='train_step'),
        row(ratio=1.005, groups=('inference',), workload='inference'),
        row('one_stage', ratio=9.0),
        *LINEAR,
        *REFERENCE,
        *SQUARE,
    ]
    found = {v.what: (v.measured, v.verdict) for v in verdicts(rows, costs)}
    head = 'RetinaNet: head loss'
    assert found == {
        f'{head}, forward + backward (threads: 1)': ('0.45× (0.44–0.46)', 'met'),
        f'{head}, forward + backward (threads: 2)': (
            '0.52× (0.47–0.57)',
            'not met, within noise',
        ),
        'SSD: head loss, forward + backward (threads: 1)': (
            '0.70× (0.70–0.70)',
            'not met',
        ),
        f'{head}, peak memory (threads: 1)': ('0.90×', 'met'),
        'RetinaNet: training step (threads: 1)': ('1.02× (1.02–1.02)', 'not met'),
        'RetinaNet: inference (threads: 1)': ('1.00× (1.00–1.00)', 'met'),
        'RetinaNet: parameters': ('+0.90 %', 'met'),
        'SSD: parameters': ('+1.10 %', 'not met'),
        'RetinaNet: time, 1 → 16 images in a batch': (
            'size^1.00 (mmdet: 1.00)',
            'met',
        ),
        'RetinaNet: memory, 1 → 16 images in a batch': (
            'size^1.00 (mmdet: 1.00)',
            'met',
        ),
        'RetinaNet: time, 100 → 1,000 anchors': ('size^2.00', 'not met'),
        'RetinaNet: memory, 100 → 1,000 anchors': ('size^1.00', 'met'),
    }


def table_rows(text):
    lines = [line for line in text.splitlines() if line.startswith('|')]
    return [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]


def test_a_section_holds_each_case_with_its_contenders():
    rows = []
    for batch, factor in ((1, 1), (2, 3)):
        for name, ratio in (('mmdet', 1.0), ('consistent', 0.25)):
            for part, value in (('forward', 0.02), ('backward', 0.01), ('total', 2.0)):
                rows.append(row(name, part, ratio, 0.1, factor * value, batch=batch))
            rows.append(row(name, MEMORY, ratio, value=80 * ratio, batch=batch))
    paragraphs = report.section(rows, 'head_loss')
    assert paragraphs[0] == '## Head loss'
    assert [p[:25] for p in paragraphs[1::2]] == [
        f'RetinaNet, {batch} × 512x512 pi' for batch in (1, 2)
    ]
    assert table_rows(paragraphs[4])[3] == [
        'consistent', '60 ms', '30 ms', '6 s', '0.25× (0.23–0.28)', '20.0 MB', '0.25×',
    ]  # fmt: skip
    assert report.section(rows, 'train_step') == []


def test_growth_section_and_plots(tmp_path):
    rows = [*LINEAR, *REFERENCE]
    text = '\n'.join(report.growth_section(rows, pictures=True))
    assert '**consistent** | × 16' in text
    assert '× 16 (size^1.00)' in text
    pictures = re.findall(r'!\[.*?\]\((.*?)\)', text)
    written = plot_growth(rows, tmp_path)
    assert [path.name for path in written] == pictures == ['speed_batch.png']
    assert written[0].read_bytes()[:4] == b'\x89PNG'


def test_a_case_is_measured_once_however_many_sections_want_it():
    first, second = Case(batch=1), Case(batch=2)
    tasks = merge_tasks(
        [
            Task(first, ('mmdet', 'consistent'), ('a',)),
            Task(second, ('mmdet',), ('a',)),
            Task(first, ('mmdet', 'cascade'), ('b',), effort=3.0),
        ]
    )
    assert tasks == [
        Task(first, ('mmdet', 'consistent', 'cascade'), ('a', 'b'), effort=3.0),
        Task(second, ('mmdet',), ('a',)),
    ]


def test_grids_and_refused_values():
    cases = grid(Case(), image=[(8, 16), (32, 32)], batch=[1, 2])
    assert [(c.image, c.batch) for c in cases] == [
        ('8x16', 1), ('8x16', 2), ('32x32', 1), ('32x32', 2),
    ]  # fmt: skip
    assert parse_image('640') == (640, 640)
    assert parse_image('800x1333') == (800, 1333)
    with pytest.raises(ValueError, match="got '8x8x8'"):
        parse_image('8x8x8')
    with pytest.raises(ValueError, match='batch must be at least 1, got 0'):
        Case(batch=0)
    with pytest.raises(ValueError, match="dtype must be one of fp32, bf16, got 'fp8'"):
        Case(dtype='fp8')


def test_a_ratio_without_spread_shows_none():
    assert report.times(Summary(0.5, 0.5, 0.5)) == '0.50×'
    assert report.times(Summary(0.5, 0.4, 0.6)) == '0.50× (0.40–0.60)'
