import contextlib
import io
import json
import math

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy import stats

from tools.dev.study import report
from tools.dev.study.numbers import (
    GROUPS,
    METRICS,
    coco_aps,
    paired_difference,
    summarise,
    t_interval,
)
from tools.dev.study.plot import draw


def test_t_interval_by_hand():
    # Mean 2, sample deviation 1, three values: t(0.975, 2) = 4.302653.
    estimate = t_interval([1.0, 2.0, 3.0])
    assert estimate.mean == 2.0
    assert estimate.half_width == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)


def test_t_interval_equals_scipys():
    values = np.random.RandomState(0).normal(1, 2, 7)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    estimate = t_interval(values)
    assert estimate.mean - estimate.half_width == pytest.approx(expected.low)
    assert estimate.mean + estimate.half_width == pytest.approx(expected.high)


def test_t_interval_of_one_value_has_no_width():
    assert t_interval([1.5]) == (1.5, None, 1)


@pytest.mark.parametrize('values', [[], [1.0, math.nan]])
def test_t_interval_refuses_nothing_and_nan(values):
    with pytest.raises(ValueError, match='all finite'):
        t_interval(values)


def test_paired_difference_uses_common_seeds_only():
    # Far apart between the seeds, equal within: no spread of the difference.
    estimate = paired_difference(
        {0: 11.0, 1: 31.0, 2: 51.0}, {1: 30.0, 0: 10.0, 7: 99.0}
    )
    assert estimate == (1.0, 0.0, 2)
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


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


def test_coco_aps_by_hand(truth, tmp_path):
    detections = [
        # IoU 0.8 with the first object of a: found up to AP80.
        dict(image_id=1, category_id=1, bbox=[10, 10, 100, 80], score=0.9),
        dict(image_id=2, category_id=1, bbox=[0, 0, 50, 50], score=0.8),
    ]
    path = tmp_path / 'found.json'
    path.write_text(json.dumps(detections))
    aps = coco_aps(truth, path)
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


def test_coco_aps_is_zero_without_detections(truth, tmp_path):
    path = tmp_path / 'found.json'
    path.write_text('[]')
    aps = coco_aps(truth, path)
    assert aps['AP'] == aps['AP50'] == aps['AP:a'] == 0.0


def pycocotools_aps(annotations, detections):
    """What the study computed before the package had an evaluation of its own."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluation = COCOeval(truth, truth.loadRes(str(detections)), 'bbox')
        evaluation.params.maxDets = [100]
        evaluation.evaluate()
        evaluation.accumulate()
    by_size = 100 * evaluation.eval['precision'][..., 0].transpose(2, 3, 0, 1)
    precision = by_size[:, 0]
    aps = {'AP': precision.mean()}
    for iou, values in zip(range(50, 100, 5), precision.transpose(1, 0, 2)):
        aps[f'AP{iou}'] = values.mean()
    names = (category['name'] for category in truth.loadCats(truth.getCatIds()))
    aps.update({f'AP:{n}': values.mean() for n, values in zip(names, precision)})
    for name, values in zip(GROUPS, by_size[:, 1:].swapaxes(0, 1)):
        if (values >= 0).any():
            aps[name] = values[values >= 0].mean()
    return aps


def test_coco_aps_equals_pycocotools_on_stored_detections(tmp_path):
    rng = np.random.RandomState(0)
    images = [dict(id=7 + i, width=256, height=192, file_name='') for i in range(12)]
    annotations, detections = [], []
    for image in images:
        for _ in range(rng.randint(1, 9)):
            x, y, w, h = (*rng.uniform(0, 150, 2), *rng.uniform(8, 80, 2))
            category = int(rng.choice([1, 3, 4]))
            box = dict(image_id=image['id'], category_id=category, bbox=[x, y, w, h])
            crowd = int(rng.random_sample() < 0.1)
            number = len(annotations) + 1
            annotations.append(dict(box, id=number, area=w * h, iscrowd=crowd))
            for _ in range(rng.randint(1, 4)):
                # Single precision, as a detector's boxes are.
                near = np.float32(rng.normal([x, y, w, h], 4)).tolist()
                score = float(np.float32(rng.random_sample()))
                detections.append(dict(box, bbox=near, score=score))
    categories = [dict(id=i, name=f'class {i}') for i in (1, 3, 4)]
    content = dict(images=images, annotations=annotations, categories=categories)
    (tmp_path / 'truth.json').write_text(json.dumps(content))
    (tmp_path / 'found.json').write_text(json.dumps(detections))
    files = tmp_path / 'truth.json', tmp_path / 'found.json'
    aps = coco_aps(*files)
    assert 5 < aps['AP'] < 95
    assert 0 < aps.pop('AP_overlapping') < 95
    assert aps == pytest.approx(pycocotools_aps(*files), abs=1e-9)


def test_coco_aps_counts_only_overlapping_objects_as_a_group(tmp_path):
    image = dict(id=1, width=100, height=100, file_name='')
    # The first two have an IoU of 1/3, across classes; the others are alone.
    boxes = ([0, 0, 20, 20], [10, 0, 20, 20], [60, 60, 20, 20], [0, 60, 20, 20])
    annotations = [
        dict(id=i, image_id=1, category_id=1 + i % 2, bbox=box, area=400, iscrowd=0)
        for i, box in enumerate(boxes, 1)
    ]
    categories = [dict(id=i, name=f'class {i}') for i in (1, 2)]
    content = dict(images=[image], annotations=annotations, categories=categories)
    (tmp_path / 'truth.json').write_text(json.dumps(content))

    def found(*numbers):
        detections = [
            dict(image_id=1, category_id=a['category_id'], bbox=a['bbox'], score=0.9)
            for a in annotations
            if a['id'] in numbers
        ]
        (tmp_path / 'found.json').write_text(json.dumps(detections))
        return coco_aps(tmp_path / 'truth.json', tmp_path / 'found.json')

    assert found(1, 2)['AP_overlapping'] == pytest.approx(100)
    assert found(1, 3, 4)['AP_overlapping'] == pytest.approx(50)
    assert found(3, 4)['AP_overlapping'] == 0
    one_class = coco_aps(tmp_path / 'truth.json', tmp_path / 'found.json', ['class 1'])
    assert 'AP_overlapping' not in one_class
    assert 'AP:class 2' not in one_class


@pytest.fixture
def runs():
    def run(ap, *positives):
        metrics = dict.fromkeys(METRICS, ap)
        return dict(metrics=metrics, positives=positives)

    return {
        'baseline': {0: run(40.0, 100.0), 1: run(42.0, 110.0)},
        'consistent': {0: run(41.0, 100.0, 300.0), 1: run(44.0, 110.0, 310.0)},
    }


def test_summarise_pairs_rows_with_the_baseline(runs):
    paper = {'baseline': {'AP': 32.5}, 'consistent': {'AP': 33.7}}
    base, row = summarise(runs, 'baseline', paper)
    assert base.values['AP'].mean == 41.0
    assert base.differences == {}
    assert row.differences['AP'].mean == 1.5
    assert row.differences['AP'].half_width == pytest.approx(12.7062 * 0.5, rel=1e-4)
    assert row.positives == (105.0, 305.0)
    assert row.paper == {'AP': 33.7}


def test_page_from_csv_shows_runs_origin_and_the_papers_figures(runs, tmp_path):
    origin = report.Origin('the command', 'table1', 'bccd', 'val', '3')
    path = tmp_path / 'a.csv'
    report.write_csv(path, origin, runs)
    assert report.read_csv(path) == (origin, {
        name: {s: dict(r, positives=list(r['positives'])) for s, r in found.items()}
        for name, found in runs.items()
    })  # fmt: skip
    text = report.page_from_csv(path)
    assert text.startswith('# Table 1 in miniature')
    assert '(bccd, val split)' in text
    assert 'Generated by `the command`.' in text
    assert 'trained for 3 epochs from one baseline per seed' in text
    assert '| consistent | 42.5 |' in text
    assert '+1.5 ± 6.4' in text
    assert '(table1_bccd_val.png)' in text
    ours, theirs = text.split("**The paper's figures**")
    assert '33.7' in theirs
    assert '+1.2' in theirs
    assert '33.7' not in ours


def test_read_csv_refuses_a_file_without_origin(tmp_path):
    (tmp_path / 'old.csv').write_text('row,seed,AP\nbaseline,0,40.0\n')
    with pytest.raises(ValueError, match=r'old\.csv was not written by .*command'):
        report.read_csv(tmp_path / 'old.csv')


def test_draw_writes_a_png(runs, tmp_path):
    draw(runs, summarise(runs, 'baseline'), 'T', tmp_path / 'x.png')
    assert (tmp_path / 'x.png').read_bytes()[:4] == b'\x89PNG'
