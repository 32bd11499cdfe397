import csv
import io
import json
import math

import numpy as np
import pytest
from scipy import stats

from tools.dev.study import numbers as study
from tools.dev.study import report as study_report


def test_interval_by_hand():
    # Mean 2, sample deviation 1, three values: t(0.975, 2) = 4.302653.
    estimate = study.t_interval([1.0, 2.0, 3.0])
    assert estimate.mean == 2.0
    assert estimate.half_width == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert not estimate.above_zero
    assert study.t_interval([2.9, 3.0, 3.1]).above_zero


def test_interval_equals_scipys():
    values = np.random.RandomState(0).normal(1, 2, 7)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    estimate = study.t_interval(values, confidence=0.9)
    assert estimate.mean - estimate.half_width == pytest.approx(expected.low)
    assert estimate.mean + estimate.half_width == pytest.approx(expected.high)


def test_one_value_has_no_interval():
    assert study.t_interval([1.5]) == (1.5, None, 1)
    assert not study.t_interval([1.5]).above_zero


@pytest.mark.parametrize('values', [[], [1.0, math.nan]])
def test_no_interval_of_nothing(values):
    with pytest.raises(ValueError, match='finite values'):
        study.t_interval(values)


def test_differences_are_paired_over_common_seeds():
    # Far apart between the seeds, equal within: no spread of the difference.
    estimate = study.paired_difference(
        {0: 11.0, 1: 31.0, 2: 51.0}, {1: 30.0, 0: 10.0, 7: 99.0}
    )
    assert estimate == (1.0, 0.0, 2)
    assert study.paired_difference({0: 1.0}, {1: 1.0}) is None


@pytest.fixture
def truth(tmp_path):
    path = tmp_path / 'truth.json'
    boxes = [(1, 1, [10, 10, 100, 100]), (2, 1, [0, 0, 50, 50]), (2, 2, [60, 0, 9, 9])]
    content = dict(
        images=[dict(id=i, width=200, height=200, file_name='') for i in (1, 2)],
        categories=[dict(id=i, name=n) for i, n in enumerate('abc', 1)],
        annotations=[
            dict(id=i, image_id=image, category_id=c, bbox=b, area=1, iscrowd=0)
            for i, (image, c, b) in enumerate(boxes, 1)
        ],
    )
    path.write_text(json.dumps(content))
    return path


def test_aps_by_hand(truth, tmp_path):
    detections = [
        # IoU 0.8 with the first object of a: found up to AP80.
        dict(image_id=1, category_id=1, bbox=[10, 10, 100, 80], score=0.9),
        dict(image_id=2, category_id=1, bbox=[0, 0, 50, 50], score=0.8),
    ]
    path = tmp_path / 'found.json'
    path.write_text(json.dumps(detections))
    aps = study.coco_aps(truth, path)
    # Class b is not found, class c has no object and does not count. Above 0.8 the
    # best of class a is a false positive, the second is true: precision 1/2 at
    # recalls up to 1/2, that is at 51 of the 101 points.
    half = 100 * 0.5 * 51 / 101
    assert aps['AP50'] == aps['AP75'] == aps['AP80'] == 50.0
    assert aps['AP85'] == aps['AP95'] == pytest.approx(half / 2)
    assert aps['AP:a'] == pytest.approx((7 * 100 + 3 * half) / 10)
    assert aps['AP:b'] == 0.0
    assert 'AP:c' not in aps
    assert aps['AP'] == pytest.approx(aps['AP:a'] / 2)


def test_nothing_found_is_zero(truth, tmp_path):
    path = tmp_path / 'found.json'
    path.write_text('[]')
    aps = study.coco_aps(truth, path)
    assert aps['AP'] == aps['AP50'] == aps['AP:a'] == 0.0


@pytest.fixture
def runs():
    def run(ap, *positives):
        metrics = dict.fromkeys(study.METRICS, ap)
        return dict(metrics=metrics, positives=positives)

    return {
        'baseline': {0: run(40.0, 100.0), 1: run(42.0, 110.0)},
        'consistent': {0: run(41.0, 100.0, 300.0), 1: run(44.0, 110.0, 310.0)},
    }


def test_summary(runs):
    paper = {'baseline': {'AP': 32.5}, 'consistent': {'AP': 33.7}}
    base, row = study.summarise(runs, 'baseline', paper)
    assert base.values['AP'].mean == 41.0
    assert base.differences == {}
    assert row.differences['AP'].mean == 1.5
    assert row.differences['AP'].half_width == pytest.approx(12.7062 * 0.5, rel=1e-4)
    assert row.positives == (105.0, 305.0)
    assert row.paper == {'AP': 33.7}


def test_page_csv_and_plot(runs, tmp_path):
    paper = {'baseline': {'AP': 32.5}, 'consistent': {'AP': 33.7}}
    rows = study.summarise(runs, 'baseline', paper)
    text = study_report.page('T', 'the command', ['note'], rows, 'baseline', 'x.png')
    assert 'Made by `the command`.' in text
    assert '| consistent | 42.5 |' in text
    assert '+1.5 ± 6.4' in text
    ours, theirs = text.split('**The paper’s figures**')
    assert '33.7' in theirs
    assert '+1.2' in theirs
    assert '33.7' not in ours

    lines = list(csv.DictReader(io.StringIO(study_report.csv_text(runs))))
    assert [(x['row'], x['seed'], x['AP'], x['pos_s1']) for x in lines] == [
        ('baseline', '0', '40.000', ''),
        ('baseline', '1', '42.000', ''),
        ('consistent', '0', '41.000', '300.0'),
        ('consistent', '1', '44.000', '310.0'),
    ]
    study_report.draw(runs, rows, 'T', tmp_path / 'x.png')
    assert (tmp_path / 'x.png').read_bytes()[:4] == b'\x89PNG'
