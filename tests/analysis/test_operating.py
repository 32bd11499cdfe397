"""Precision, recall, F1 and confusions against plain loops and other libraries."""

import json

import numpy as np
import pytest

from mmdet_consistent.analysis import coco_eval
from mmdet_consistent.analysis.columns import boxes_of
from mmdet_consistent.analysis.matching import match_detections
from mmdet_consistent.analysis.operating import (
    class_curve,
    confusion_matrix,
    mean_curve,
)
from tests.reference.operating import judge
from tests.support.analysis import random_split, table, truth_of

NUM = 3


def reference_matrix(detections, truth, image_ids, threshold):
    """The confusion matrix, by plain loops."""
    matrix = np.zeros((NUM + 1, NUM + 1), int)
    for image_id in image_ids:
        rows = np.flatnonzero(detections['image_id'] == image_id)
        boxes = boxes_of(detections).astype(float).tolist()
        found = [
            (int(detections['label'][i]), float(detections['score'][i]), boxes[i])
            for i in rows
        ]
        objects = [
            (int(label), box.tolist(), bool(crowd))
            for box, label, crowd in zip(*truth.of_image(image_id))
        ]
        for pair in judge(found, objects, threshold):
            matrix[tuple(NUM if label is None else label for label in pair)] += 1
    return matrix


@pytest.mark.parametrize('seed', range(3))
def test_curve_and_confusions_equal_plain_loops_with_crowds(seed):
    detections, truth, image_ids = random_split(seed, crowd_share=0.3)
    matched = match_detections(detections, truth, image_ids)
    thresholds = np.quantile(matched.score, np.linspace(1, 0, 9), method='nearest')
    curves = [class_curve(matched, label, thresholds) for label in range(NUM)]
    means = mean_curve(matched, thresholds)
    for i, threshold in enumerate(thresholds):
        expected = reference_matrix(detections, truth, image_ids, threshold)
        matrix = confusion_matrix(detections, matched, truth, image_ids, threshold)
        np.testing.assert_array_equal(matrix, expected)
        right = expected.diagonal()[:NUM]
        kept, objects = expected.sum(0)[:NUM], expected.sum(1)[:NUM]
        assert objects.tolist() == matched.num_objects.tolist()
        with np.errstate(invalid='ignore'):
            parts = (right / kept, right / objects, 2 * right / (kept + objects))
        for name, values in zip(('precision', 'recall', 'f1'), parts):
            found = [getattr(curve, name)[i] for curve in curves]
            np.testing.assert_allclose(found, values)
            np.testing.assert_allclose(getattr(means, name)[i], np.nanmean(values))


def test_best_threshold_has_the_highest_f1_of_all_scores():
    detections, truth, image_ids = random_split(1, crowd_share=0.2)
    matched = match_detections(detections, truth, image_ids)
    for label in range(NUM):
        best = class_curve(matched, label).best()
        every = class_curve(matched, label, np.sort(matched.score)[::-1])
        assert best['f1'] == every.f1.max()
        again = class_curve(matched, label, np.array([best['threshold']]))
        assert [*best.values()] == [float(value[0]) for value in again]
    assert mean_curve(matched).best()['threshold'] in matched.score


def test_best_threshold_equals_the_one_found_by_hand():
    truth = truth_of([(1, 0, 0, 0, 10, 10), (1, 0, 50, 0, 60, 10)])
    detections = table(
        [
            (1, 0, 0.9, 0, 0, 10, 10),  # right: P 1, R 1/2, F1 2/3
            (1, 0, 0.8, 80, 0, 90, 10),  # wrong
            (1, 0, 0.5, 50, 0, 60, 10),  # right: P 2/3, R 1, F1 4/5
            (1, 0, 0.5, 90, 0, 99, 10),  # wrong, same score: P 1/2, R 1, F1 2/3
        ]
    )
    matched = match_detections(detections, truth, [1])
    curve = class_curve(matched, 0)
    np.testing.assert_allclose(curve.threshold, [0.9, 0.8, 0.5], rtol=1e-6)
    np.testing.assert_allclose(curve.f1, [2 / 3, 1 / 2, 2 / 3])
    best = curve.best()
    assert best['threshold'] == pytest.approx(0.9)  # of equal ones, the highest
    assert (best['precision'], best['recall']) == (1, 0.5)


@pytest.mark.parametrize('rows', [[], [(1, 1, 0.9, 0, 0, 10, 10)]])
def test_class_without_objects_or_detections_has_no_best_threshold(rows):
    truth = truth_of([(1, 0, 0, 0, 10, 10)], num_classes=2)
    matched = match_detections(table(rows), truth, [1])
    for label in range(2):
        assert np.isnan(class_curve(matched, label).best()['f1'])
    assert np.nan_to_num(mean_curve(matched).best()['f1']) == 0
    none = match_detections(table(rows), truth_of([]), [1])
    assert np.isnan(mean_curve(none).best()['f1'])
    matrix = confusion_matrix(table(rows), matched, truth, [1], 0.5)
    # On an object of the other class, it is a confusion.
    assert matrix[0].tolist() == ([0, 1, 0] if rows else [0, 0, 1])


def test_detections_beyond_the_hundredth_of_a_class_do_not_count():
    truth = truth_of([(1, 0, 0, 0, 10, 10)], num_classes=2)
    wrong = [(1, 0, 0.9 - i / 1000, 50, 0, 60, 10) for i in range(100)]
    detections = table([*wrong, (1, 0, 0.1, 0, 0, 10, 10), (1, 1, 0.1, 0, 0, 9, 9)])
    matched = match_detections(detections, truth, [1])
    assert np.flatnonzero(matched.ignored).tolist() == [100]
    assert class_curve(matched, 0).recall.max() == 0
    matrix = confusion_matrix(detections, matched, truth, [1], 0)
    assert matrix.tolist() == [[0, 1, 0], [0, 0, 0], [100, 0, 0]]


def test_mean_curve_equals_faster_coco_evals_extended_metrics():
    fast = pytest.importorskip('faster_coco_eval', reason='needs Python 3.10')
    for seed in range(3):
        detections, truth, image_ids = random_split(seed)
        ground = fast.COCO(truth.to_coco(image_ids))
        found = ground.loadRes(coco_eval.to_results(detections, truth))
        evaluation = fast.COCOeval_faster(ground, found, 'bbox', print_function=str)
        # With more thresholds, what is right at a higher one alone counts as well.
        evaluation.params.iouThrs = np.array([0.5])
        evaluation.run()
        theirs = evaluation.extended_metrics
        matched = match_detections(detections, truth, image_ids)
        best = mean_curve(matched).best()
        assert best['precision'] == pytest.approx(theirs['precision'])
        assert best['recall'] == pytest.approx(theirs['recall'])


@pytest.mark.works_with(
    'hotcoco', 'COCO evaluation of the result files', 'analysis.md#what-it-shows'
)
def test_hotcoco_reads_the_results_and_counts_the_same_confusions(tmp_path):
    hotcoco = pytest.importorskip('hotcoco', reason='needs Python 3.10')
    # No crowds and no overlapping objects: there hotcoco's rules are COCO's.
    rng = np.random.default_rng(0)
    objects, found = [], []
    for i in range(200):
        image, x, y = 1 + i // 20, 50 * (i % 5), 50 * (i // 5 % 4)
        objects.append((image, rng.integers(NUM), x, y, x + 40, y + 40))
        for _ in range(rng.integers(3)):
            dx, dy = rng.uniform(0, 20, 2)
            label = objects[-1][1] if rng.random() < 0.7 else rng.integers(NUM)
            found.append(
                (image, label, rng.random(), x + dx, y + dy, x + 40, y + 40 + dy)
            )
    truth = truth_of(objects, 10, NUM)
    detections, image_ids = table(found), truth.order
    coco_eval.write_results(tmp_path / 'found.json', detections, truth)
    (tmp_path / 'truth.json').write_text(json.dumps(truth.to_coco(image_ids)))
    ground = hotcoco.COCO(str(tmp_path / 'truth.json'))
    evaluation = hotcoco.COCOeval(
        ground, ground.load_res(str(tmp_path / 'found.json')), 'bbox'
    )
    evaluation.run()
    ap = coco_eval.evaluate(detections, truth, image_ids).mean()
    assert evaluation.stats[0] == pytest.approx(ap)
    matched = match_detections(detections, truth, image_ids)
    for threshold in (0, 0.3, 0.6):
        ours = confusion_matrix(detections, matched, truth, image_ids, threshold)
        theirs = evaluation.confusion_matrix(min_score=threshold)['matrix']
        if threshold == 0:
            assert (ours > 0).sum() == 15  # all cells but the last are tried
        np.testing.assert_array_equal(ours, theirs)
