from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from tools.dev.study.boxes import collect_anchors, facts, follow_anchors

ROOT = Path(__file__).resolve().parents[3]
# Two objects side by side, of two classes.
GTS = torch.tensor([[0.0, 0, 10, 10], [10, 0, 20, 10]])
LABELS = torch.tensor([0, 1])


def test_follow_anchors_of_one_image_by_hand():
    priors = torch.tensor(
        [
            [0.0, 0, 10, 8],  # stays with its object
            [4.0, 0, 14, 10],  # labelled object 0, ends on object 1
            [5.0, 0, 9, 4],  # no first label, ends on object 0
            [50.0, 50, 60, 60],  # nowhere near
        ]
    )
    first = torch.tensor(
        [[0.0, 0, 10, 9], [10, 0, 20, 9], [0, 0, 10, 8], [50, 50, 60, 60]]
    )
    last = torch.tensor(
        [[0.0, 0, 10, 10], [10, 0, 20, 8], [0, 0, 10, 9], [50, 50, 60, 60]]
    )
    anchors = follow_anchors(
        priors, [first, last], torch.tensor([1, 1, 0, 0]), GTS, LABELS
    )
    assert anchors.first.tolist() == [True, True, False]
    assert anchors.second.tolist() == [True, True, True]
    np.testing.assert_allclose(anchors.prior_iou, [0.8, 6 / 14, 0.16], rtol=1e-5)
    np.testing.assert_allclose(anchors.own_iou, [0.9, 0.0, np.nan], rtol=1e-5)
    np.testing.assert_allclose(anchors.refined_iou, [0.9, 0.9, 0.8], rtol=1e-5)
    np.testing.assert_allclose(anchors.final_iou, [1.0, 0.8, 0.9], rtol=1e-5)
    assert (
        anchors.moved.tolist() == anchors.moved_class.tolist() == [False, True, False]
    )

    found = facts(anchors)
    assert found['first positives per object'] == 1.0
    assert found['second positives per object'] == 1.5
    assert found['first positives: refined IoU'] == pytest.approx(45)
    assert found['first positives: refined IoU < 0.5 (%)'] == 50
    assert found['first positives that moved to another object (%)'] == 50
    assert found['positive for both: IoU after the last step'] == pytest.approx(90)
    assert found['second labels only: IoU after step 1'] == pytest.approx(80)


@pytest.mark.parametrize('kind', ['RetinaHead', 'ConsistentRetinaHead'])
def test_collect_anchors_of_a_detector_that_never_moves_them(kind):
    init_default_scope('mmdet')
    cfg = Config.fromfile(ROOT / 'tools/dev/study/configs/retinanet_bccd.py')
    cfg.model.bbox_head.type = kind
    model = MODELS.build(cfg.model).eval()
    for parameter in model.bbox_head.retina_reg.parameters():
        torch.nn.init.zeros_(parameter)
    gts = torch.tensor([[20.0, 20, 52, 52], [70, 30, 100, 64]])
    samples = []
    for boxes in (gts, gts[:0]):
        sample = DetDataSample(metainfo=dict(img_shape=(128, 128)))
        sample.gt_instances = InstanceData(
            bboxes=boxes, labels=torch.zeros(len(boxes), dtype=torch.long)
        )
        samples.append(sample)
    batch = dict(
        inputs=[torch.zeros(3, 128, 128, dtype=torch.uint8)] * 2, data_samples=samples
    )
    anchors = collect_anchors(model, [batch])
    assert anchors.objects == 2
    assert anchors.first.sum() > 4
    np.testing.assert_allclose(anchors.refined_iou, anchors.prior_iou, atol=1e-5)
    np.testing.assert_allclose(anchors.final_iou, anchors.prior_iou, atol=1e-5)
    assert (anchors.second == (anchors.prior_iou >= 0.6)).all()
    assert not anchors.moved.any()
