import numpy as np
import pytest
import torch

from mmdet_consistent.analysis import collect
from mmdet_consistent.analysis.annotations import ImageObjects
from mmdet_consistent.analysis.cases import worst_cases
from mmdet_consistent.analysis.columns import CORNERS, select_images
from mmdet_consistent.analysis.recorder import AnchorOutputs
from mmdet_consistent.analysis.shards import ShardStore
from mmdet_consistent.analysis.summary import changed_object, positives


def outputs_of(priors, finals, scores, nms_iou=0.5):
    boxes = [torch.tensor(priors, dtype=torch.float32)]
    boxes.append(torch.tensor(finals, dtype=torch.float32))
    return AnchorOutputs(boxes, torch.tensor(scores), None, nms_iou)


def truth(boxes, labels):
    return ImageObjects(
        np.array(boxes, dtype=float), np.array(labels), np.zeros(len(boxes), bool)
    )


def figure_2():
    """The paper's Figure 2: two anchors on a bicycle, one drawn to a person.

    The bicycle (class 0) is at 0…10; the person (class 1) stands in it. Anchor 0
    ends near the person yet scores best as a bicycle; anchor 1 ends right on the
    bicycle and is suppressed; anchor 2 is far away.
    """
    outputs = outputs_of(
        priors=[[0, 0, 10, 8], [0, 0, 8, 10], [50, 50, 60, 60]],
        finals=[[0, 0, 6, 10], [0, 0, 10, 10], [50, 50, 60, 60]],
        scores=[[0.8, 0.3], [0.6, 0.1], [0.04, 0.0]],
    )
    return outputs, truth([[0, 0, 10, 10], [0, 0, 5, 10]], [0, 1])


def test_object_rows_finds_the_misalignment_of_figure_2():
    outputs, objects = figure_2()
    rows = collect.object_rows(7, outputs, objects, score_thr=0.05)
    assert rows['image_id'].tolist() == [7, 7]
    assert rows['win_score'][0] == pytest.approx(0.8)
    assert rows['win_iou'][0] == pytest.approx(0.6)
    assert rows['win_prior_iou'][0] == pytest.approx(0.8)
    assert rows['best_score'][0] == pytest.approx(0.6)
    assert rows['best_iou'][0] == pytest.approx(1.0)
    assert rows['best_prior_iou'][0] == pytest.approx(0.8)
    assert rows['loss'][0] == pytest.approx(0.4)
    assert [rows[f'best_prior_{c}'][0] for c in CORNERS] == [0, 0, 8, 10]
    # As a person, anchor 0 has IoU 5/6 and is the best.
    assert rows['win_iou'][1] == pytest.approx(5 / 6)
    assert rows['loss'][1] == 0


def test_object_rows_has_no_loss_where_nms_keeps_the_best_box():
    outputs, objects = figure_2()
    outputs = outputs._replace(nms_iou=0.7)  # their overlap is 0.6
    assert collect.object_rows(7, outputs, objects)['loss'][0] == 0


def test_object_rows_is_nan_for_an_object_without_competitor():
    outputs, _ = figure_2()
    rows = collect.object_rows(7, outputs, truth([[100, 100, 110, 110]], [0]))
    assert np.isnan(rows['loss']).all()
    assert np.isnan(rows['win_score']).all()
    assert len(collect.object_rows(7, outputs, truth(np.zeros((0, 4)), []))['gt']) == 0


def test_anchor_rows_and_counts_before_and_after_regression():
    outputs, objects = figure_2()
    ious = collect.anchor_ious(outputs, objects)
    rows = collect.anchor_rows(7, outputs, ious, limit=100)
    order = np.argsort(rows['anchor'])
    np.testing.assert_allclose(rows['iou_0'][order], [0.8, 0.8, 0])
    np.testing.assert_allclose(rows['iou_1'][order], [5 / 6, 1, 0], rtol=1e-6)
    assert rows['gt_0'][order].tolist() == [0, 0, -1]
    assert rows['gt_1'][order].tolist() == [1, 0, -1]
    np.testing.assert_allclose(rows['score'][order], [0.8, 0.6, 0.04])
    assert rows['weight'].tolist() == [1, 1, 1]
    # One of the two anchors that begin on an object ends on another.
    assert changed_object(rows) == pytest.approx(0.5)

    counts = collect.anchor_counts(ious)
    assert counts.shape == (2, 100)
    assert counts.sum(axis=1).tolist() == [3, 3]
    assert positives(counts, 0.8).tolist() == [2, 2]
    assert positives(counts, 0.85).tolist() == [0, 1]
    assert positives(counts, 0.0).tolist() == [3, 3]


def test_anchor_rows_samples_with_weights_and_repeatably():
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 90, 5000)
    priors = np.stack([x, x, x + 10, x + 10], axis=1)
    outputs = outputs_of(priors, priors, rng.random((5000, 2)).astype(np.float32))
    objects = truth([[0, 0, 12, 12], [40, 40, 50, 50]], [0, 1])
    ious = collect.anchor_ious(outputs, objects)
    near = (ious[0][0].numpy() >= collect.NEAR_IOU).sum()
    rows = collect.anchor_rows(3, outputs, ious, limit=200)
    assert len(rows['anchor']) == 200 == len(np.unique(rows['anchor']))
    assert rows['weight'].sum() == pytest.approx(5000)
    is_near = rows['iou_0'] >= collect.NEAR_IOU
    assert is_near.sum() == 100
    assert rows['weight'][is_near].sum() == pytest.approx(near)
    again = collect.anchor_rows(3, outputs, ious, limit=200)
    assert again['anchor'].tolist() == rows['anchor'].tolist()
    other = collect.anchor_rows(4, outputs, ious, limit=200)
    assert other['anchor'].tolist() != rows['anchor'].tolist()
    # Unbiased: the mean IoU of those near is met to within its error.
    true_mean = ious[0][0].numpy()[ious[0][0].numpy() >= collect.NEAR_IOU].mean()
    assert rows['iou_0'][is_near].mean() == pytest.approx(true_mean, abs=0.1)


def test_select_images_keeps_the_rows_of_those_images():
    rows = dict(image_id=np.array([3, 1, 2, 3]), score=np.array([0.1, 0.2, 0.3, 0.4]))
    assert select_images(rows, [3, 2])['score'].tolist() == [0.1, 0.3, 0.4]


def test_worst_cases_returns_one_case_per_image():
    objects = dict(
        image_id=np.array([1, 1, 2, 3, 4]),
        gt=np.array([0, 1, 0, 0, 0]),
        loss=np.array([0.3, 0.5, np.nan, 0.0, 0.4]),
    )
    cases = worst_cases(objects, model=0, count=5)
    assert [(c.image_id, c.gt) for c in cases] == [(1, 1), (4, 0)]
    assert worst_cases({}, 0, 5) == []


def test_shard_store_resumes_after_an_interruption(tmp_path):
    made_from = dict(checkpoint='a.pth', limit=None)
    store = ShardStore(tmp_path / 'm', made_from)
    for image_id in (5, 6):
        store.add(image_id, dict(t=dict(x=np.array([image_id, image_id]))))
    store.flush()
    store.add(7, dict(t=dict(x=np.array([7]))))  # never flushed: lost
    (tmp_path / 'm' / 'shard_00001.npz.partial').write_bytes(b'half a file')

    store = ShardStore(tmp_path / 'm', made_from)
    assert store.image_ids() == [5, 6]
    store.add(7, dict(t=dict(x=np.array([7, 8]))))
    store.flush()
    assert store.image_ids() == [5, 6, 7]
    assert store.load('t')['x'].tolist() == [5, 5, 6, 6, 7, 8]
    assert store.load('other') == {}


def test_shard_store_refuses_rows_made_from_something_else(tmp_path):
    ShardStore(tmp_path / 'm', dict(checkpoint='a.pth'))
    with pytest.raises(ValueError, match=r"checkpoint was 'a.pth' and is now 'b.pth'"):
        ShardStore(tmp_path / 'm', dict(checkpoint='b.pth'))
    store = ShardStore(tmp_path / 'm', dict(checkpoint='b.pth'), fresh=True)
    assert store.image_ids() == []
