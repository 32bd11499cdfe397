import numpy as np
import pytest
import torch
from mmdet.registry import METRICS
from mmdet.structures.bbox import HorizontalBoxes
from scipy.stats import spearmanr

import mmdet_consistent  # noqa: F401


def instances(rows):
    """(label, score, x1, y1, x2, y2) as a detector's output."""
    rows = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return dict(bboxes=rows[:, 2:], scores=rows[:, 1], labels=rows[:, 0].long())


def build():
    metric = METRICS.build(dict(type='ConsistencyMetric'))
    metric.dataset_meta = dict(classes=('a', 'b'))
    return metric


def test_values_equal_those_worked_out_by_hand():
    metric = build()
    square = [0.0, 0, 10, 10]
    truth = dict(
        # As training pipelines give them: in mmdet's box type.
        bboxes=HorizontalBoxes(
            torch.tensor([square, [50, 0, 60, 10], [80, 0, 90, 10]])
        ),
        labels=torch.tensor([0, 0, 0]),
    )
    crowd = dict(bboxes=torch.tensor([[100.0, 0, 200, 100]]), labels=torch.tensor([0]))
    found = instances(
        [
            (0, 0.9, 0, 0, 10, 6),  # IoU 0.6
            (0, 0.8, 50, 0, 60, 9),  # IoU 0.9
            (0, 0.7, 80, 0, 90, 10),  # IoU 1.0
            (0, 0.6, 150, 50, 160, 60),  # in the crowd: not counted
        ]
    )
    metric.process(
        {}, [dict(pred_instances=found, gt_instances=truth, ignored_instances=crowd)]
    )
    # An image of the other class where nothing is found.
    empty = dict(bboxes=torch.tensor([square]), labels=torch.tensor([1]))
    metric.process({}, [dict(pred_instances=instances([]), gt_instances=empty)])
    values = metric.evaluate(size=2)
    assert values['consistency/rank_correlation'] == pytest.approx(-1)
    expected = spearmanr([0.9, 0.8, 0.7, 0.6], [0.6, 0.9, 1.0, 0.0]).statistic
    assert values['consistency/rank_correlation_all'] == pytest.approx(expected)
    # Each in a bin of its own: (|0.9 − 0.6| + |0.8 − 0.9| + |0.7 − 1|) / 3.
    assert values['consistency/laece'] == pytest.approx(0.7 / 3, abs=1e-6)
    # Class 0 at the lowest score: (0.4 + 0.1 + 0) / 0.5 / 3; class 1: all lost.
    assert values['consistency/olrp'] == pytest.approx((1 / 3 + 1) / 2, abs=1e-6)


def test_values_without_any_detection():
    metric = build()
    truth = dict(bboxes=torch.tensor([[0.0, 0, 9, 9]]), labels=torch.tensor([0]))
    metric.process({}, [dict(pred_instances=instances([]), gt_instances=truth)])
    values = metric.evaluate(size=1)
    assert values['consistency/olrp'] == 1
    assert np.isnan(values['consistency/rank_correlation'])


def test_sample_without_ground_truth_is_refused():
    metric = build()
    with pytest.raises(ValueError, match=r'LoadAnnotations.*after Resize'):
        metric.process({}, [dict(pred_instances=instances([]))])
