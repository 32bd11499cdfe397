import importlib.util
import json

import numpy as np
import pytest
import torch
from mmdet.evaluation import CocoMetric

from mmdet_consistent.analysis import coco_eval
from mmdet_consistent.analysis.annotations import AnnotatedSet
from mmdet_consistent.analysis.coco_eval import read_results, write_results
from tests.support.analysis import random_split, table, truth_of

needs_faster = pytest.mark.skipif(
    importlib.util.find_spec('faster_coco_eval') is None,
    reason='faster-coco-eval is not installed (extra "analysis")',
)


@needs_faster
@pytest.mark.parametrize('seed', range(4))
@pytest.mark.works_with(
    'faster-coco-eval',
    'evaluate in place of pycocotools, with equal results',
    'analysis.md',
)
def test_evaluate_agrees_between_backends(seed):
    detections, truth, image_ids = random_split(seed, crowd_share=0.2)
    slow, fast = (
        coco_eval.evaluate(detections, truth, image_ids[:10], backend)
        for backend in ('pycocotools', 'faster_coco_eval')
    )
    np.testing.assert_allclose(slow.ap, fast.ap, atol=1e-12)
    np.testing.assert_allclose(slow.recall, fast.recall, atol=1e-12)
    assert slow.mean() > 0


def test_evaluate_equals_aps_computed_by_hand():
    truth = truth_of([(1, 0, 0, 0, 10, 10), (1, 0, 50, 0, 100, 50)])
    detections = table(
        [
            (1, 0, 0.9, 0, 0, 10, 8.05),  # IoU 0.805 with the small object
            (1, 0, 0.8, 150, 0, 160, 10),  # nothing
            (1, 0, 0.7, 50, 0, 100, 27.6),  # IoU 0.552 with the medium one
        ]
    )
    result = coco_eval.evaluate(detections, truth, [1], 'pycocotools')
    both = (51 + 50 * 2 / 3) / 101  # at 0.50 and 0.55
    one = 51 / 101  # from 0.60 to 0.80
    expected = [both] * 2 + [one] * 5 + [0] * 3
    np.testing.assert_allclose(result.ap[:, 0, 0], expected)
    assert result.mean() == pytest.approx(np.mean(expected))
    assert result.mean(0.75) == pytest.approx(one)
    assert np.isnan(result.mean(size='large'))


def test_evaluate_orders_classes_as_the_detector_does():
    """Category ids may run against the order of the classes."""
    coco = truth_of([(1, 0, 0, 0, 10, 10), (1, 1, 50, 0, 60, 10)], 1, 2).to_coco([1])
    truth = AnnotatedSet(coco, classes=['class 1', 'class 0'])
    detections = table([(1, 0, 0.9, 50, 0, 60, 10)])  # label 0 is 'class 1'
    result = coco_eval.evaluate(detections, truth, [1])
    np.testing.assert_allclose(result.ap[0, :, 0], [1, 0])


@pytest.mark.parametrize(
    'backend', ['pycocotools', pytest.param('faster_coco_eval', marks=needs_faster)]
)
def test_evaluate_without_detections_gives_zero_where_there_are_objects(backend):
    truth = truth_of([(1, 0, 0, 0, 10, 10)], num_classes=2)
    result = coco_eval.evaluate(table([]), truth, [1], backend)
    np.testing.assert_array_equal(result.ap[0], [[0, 0, np.nan, np.nan], [np.nan] * 4])


def test_evaluate_equals_mmdets_coco_metric(tmp_path):
    """The very numbers that training logs."""
    detections, truth, image_ids = random_split(3, crowd_share=0.2)
    ann_file = tmp_path / 'truth.json'
    ann_file.write_text(json.dumps(truth.to_coco(image_ids)))
    metric = CocoMetric(ann_file=str(ann_file), metric='bbox')
    metric.dataset_meta = dict(classes=truth.classes)
    for image_id in image_ids:
        rows = detections['image_id'] == image_id
        names = ('x1', 'y1', 'x2', 'y2')
        instances = dict(
            bboxes=torch.from_numpy(np.stack([detections[n][rows] for n in names], 1)),
            scores=torch.from_numpy(detections['score'][rows]),
            labels=torch.from_numpy(detections['label'][rows]),
        )
        sample = dict(img_id=image_id, ori_shape=(200, 200), pred_instances=instances)
        metric.process({}, [sample])
    logged = metric.evaluate(size=len(image_ids))
    for backend in coco_eval.BACKENDS:
        if importlib.util.find_spec(backend):
            result = coco_eval.evaluate(detections, truth, image_ids, backend)
            # mmdet rounds to three digits.
            assert logged['coco/bbox_mAP'] == pytest.approx(result.mean(), abs=6e-4)
            assert logged['coco/bbox_mAP_75'] == pytest.approx(
                result.mean(0.75), abs=6e-4
            )


def test_oracles_move_boxes_or_replace_scores():
    truth = truth_of([(1, 0, 0, 0, 10, 10), (1, 0, 50, 0, 60, 10)])
    detections = table(
        [
            (1, 0, 0.9, 0, 0, 10, 6),  # IoU 0.6
            (1, 0, 0.8, 50, 0, 60, 0.5),  # IoU 0.05: stays
            (1, 0, 0.7, 0, 0, 10, 9.9),  # better, worse score: a duplicate
        ]
    )
    moved = coco_eval.with_perfect_boxes(detections, truth)
    assert moved['y2'].tolist() == [10, 0.5, 10]
    assert moved['score'].tolist() == detections['score'].tolist()
    ranked = {**detections, 'score': np.array([0.6, 0.05, 0.99], np.float32)}
    before = coco_eval.evaluate(detections, truth, [1])
    after = coco_eval.evaluate(ranked, truth, [1])
    assert before.mean(0.9) == pytest.approx(51 / 101 / 3)  # right at the third
    assert after.mean(0.9) == pytest.approx(51 / 101)  # at once


def test_evaluate_names_the_backends_if_one_is_unknown():
    with pytest.raises(ValueError, match=r'faster_coco_eval.*got .mine'):
        coco_eval.evaluate(table([]), truth_of([]), [1], 'mine')


def test_read_results_returns_what_write_results_wrote(tmp_path):
    detections, truth, _ = random_split(1)
    path = tmp_path / 'dets.json'
    write_results(path, detections, truth)
    back = read_results(path, truth)
    for name, values in detections.items():
        np.testing.assert_allclose(back[name], values, rtol=1e-5)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{', 'not a readable result file'),
        ('{}', 'not a COCO result file'),
        ('[{"image_id": 1}]', 'not a COCO result file'),
        (
            '[{"image_id": 99, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1}]',
            'image_id 99 is not in the annotations',
        ),
    ],
)
def test_read_results_names_an_invalid_file(tmp_path, text, message):
    path = tmp_path / 'dets.json'
    path.write_text(text)
    with pytest.raises(ValueError, match=rf'dets\.json.*{message}'):
        read_results(path, truth_of([(1, 0, 0, 0, 1, 1)]))
