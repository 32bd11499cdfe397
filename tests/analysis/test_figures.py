"""The numbers behind the figures, for a handful of anchors."""

import numpy as np
import pytest

from mmdet_consistent.analysis import charts, figures, tables
from mmdet_consistent.analysis.summary import Model, Summary
from tests.support.analysis import table, truth_of


@pytest.fixture(scope='module')
def summary():
    """One image, two objects; four kinds of anchors, two regressions."""
    truth = truth_of([(1, 0, 0, 0, 10, 10), (1, 0, 50, 0, 60, 10)])
    detections = table(
        [
            (1, 0, 0.9, 0, 0, 10, 6),  # IoU 0.6: wins
            (1, 0, 0.6, 50, 0, 60, 8),  # IoU 0.8
        ]
    )
    anchors = dict(
        weight=np.array([1.0, 1.0, 1.0, 97.0]),
        score=np.array([0.9, 0.5, 0.1, 0.0]),
        iou_0=np.array([0.62, 0.62, 0.32, 0.02]),
        iou_1=np.array([0.72, 0.92, 0.32, 0.02]),
        iou_2=np.array([0.92, 0.92, 0.62, 0.02]),
        gt_0=np.array([0, 1, 1, -1]),
        gt_2=np.array([0, 0, 1, -1]),
    )
    counts = np.zeros((3, 100))
    for stage in range(3):
        for iou, weight in zip(anchors[f'iou_{stage}'], anchors['weight']):
            counts[stage, round(iou * 100)] += weight
    objects = dict(
        image_id=np.array([1, 1]), gt=np.array([0, 1]), loss=np.array([0.3, 0.05])
    )
    model = Model('ours', [1], detections, detections, anchors, objects, counts)
    return Summary(model, truth)


def numbers(chart):
    """Rows of the chart's table by their first column."""
    return {row[0]: row[1:] for row in chart.table()[1]}


def by_key(drawn):
    return {chart.key: chart for chart in drawn}


def test_before_and_after_counts_anchors_as_figure_3(summary):
    drawn = by_key(figures.before_and_after([summary]))
    rows = numbers(drawn['positives'])
    # Prior, refined, refined twice.
    assert drawn['positives'].table()[0][1:] == [
        'ours, prior',
        'ours, refined',
        'ours, refined 2 times',
    ]
    assert rows['0.300'] == ['3.0', '3.0', '3.0']
    assert rows['0.500'] == ['2.0', '2.0', '3.0']
    assert rows['0.750'] == ['–', '1.0', '2.0']
    grid = drawn['before-after-m0-step1'].series[0].y
    assert grid.shape == (40, 40)
    assert grid.sum() == 100
    assert grid[24, 28] == 1
    assert grid[24, 36] == 1
    assert grid[0, 0] == 97
    assert drawn['before-after-m0-step2'].series[0].y[28, 36] == 1


def test_score_and_localisation_bins_anchors_as_figure_5(summary):
    drawn = by_key(figures.score_and_localisation([summary]))
    # Output IoU 0.92: scores 0.9 and 0.5.
    assert numbers(drawn['score-mean'])['0.925'] == ['0.700']
    assert numbers(drawn['score-spread'])['0.925'] == ['0.200']
    assert numbers(drawn['score-mean'])['0.625'] == ['0.100']
    assert numbers(drawn['score-mean'])['0.425'] == ['–']
    # Input IoU 0.62: outputs 0.72 and 0.92. The second step starts at 0.72.
    mean, spread = numbers(drawn['place-mean']), numbers(drawn['place-spread'])
    assert mean['0.625'] == ['0.820', '–']
    assert spread['0.625'] == ['0.100', '–']
    assert mean['0.725'] == ['–', '0.920']
    assert mean['0.325'] == ['0.320', '0.620']


def test_accuracy_shows_ap_errors_and_oracles(summary):
    drawn = by_key(figures.accuracy([summary]))
    ap = numbers(drawn['ap'])
    assert ap['AP50'] == ['100.0']
    assert ap['AP90'] == ['0.0']
    # At 0.65 only the second is right: precision 1/2 up to a recall of 1/2.
    curve = numbers(drawn['ap-by-iou'])
    assert curve['0.600'] == ['100.0']
    assert curve['0.850'] == ['0.0']
    assert curve['0.650'] == [f'{100 * 51 / 101 / 2:.1f}']
    assert all(row == ['0.00'] for row in numbers(drawn['errors']).values())
    oracles = numbers(drawn['oracles'])
    assert oracles['perfect boxes'] == ['100.0']
    # Ranked by IoU the right one comes first from 0.65 to 0.80.
    better = (3 * 100 + 4 * 100 * 51 / 101) / 10
    assert oracles['ranked by true IoU after NMS'] == [f'{better:.1f}']


def test_calibration_shows_precision_and_iou_by_score(summary):
    drawn = by_key(figures.calibration([summary]))
    assert numbers(drawn['reliability'])['0.650'] == ['1.000']
    assert numbers(drawn['reliability-iou'])['0.650'] == ['0.800']
    assert numbers(drawn['reliability-iou'])['0.950'] == ['0.600']


def test_overview_shows_the_single_numbers(summary):
    values = summary.scalars
    assert values['rank correlation, IoU >= 0.5'] == pytest.approx(-1)
    assert values['anchors at IoU >= 0.5 per image, prior'] == 2
    assert values['anchors at IoU >= 0.5 per image, refined 2 times'] == 3
    assert values['anchors that change object'] == pytest.approx(0.5)
    assert values['objects losing IoU >= 0.1 to ranking'] == pytest.approx(0.5)
    rows = {row.name: row for row in tables.overview([summary])}
    assert rows['AP50'].texts == ['100.0']
    assert rows['AP50'].arrow == '↑'
    assert rows['objects losing IoU ≥ 0.1 to ranking'].texts == ['50.0']
    assert rows['objects losing IoU ≥ 0.1 to ranking'].arrow == '↓'


def test_tables_by_class_and_by_size(summary):
    header, rows = tables.class_table([summary])
    assert header == ['class', 'objects', 'AP', 'AP50', 'AP75', 'oLRP']
    assert rows[0][:2] == ['class 0', 2]
    assert rows[0][3] == pytest.approx(100)
    # oLRP: (0.4/0.5 + 0.2/0.5) / 2 with both.
    assert rows[0][5] == pytest.approx(60)
    sizes = tables.size_table([summary])[1]
    assert sizes[1][2] == pytest.approx(100)  # both are small
    assert np.isnan(sizes[2][2])


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [
        p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts
    ]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize(
    ('colours', 'card'), [(charts.LIGHT, '#f6f8fa'), (charts.DARK, '#161b22')]
)
def test_model_colours_contrast_with_the_page(colours, card):
    """WCAG 2.1, 1.4.11: 3 to 1 for graphics."""
    for colour in colours:
        low, high = sorted([luminance(colour), luminance(card)])
        assert (high + 0.05) / (low + 0.05) >= 3, colour
