import pytest
import torch
from mmdet.models.task_modules import AssignResult, MaxIoUAssigner, RandomSampler
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData

from mmdet_consistent.heads.targets import GroundTruth
from tests.support.builders import instances

FIRST = [[0, 0, 20, 20], [2, 0, 22, 20], [50, 50, 90, 90], [48, 52, 90, 88]]
SECOND = [[0, 0, 9, 30], [60, 0, 90, 30], [61, 2, 92, 30], [5, 5, 25, 25]]
FAR = [0, 9, 9, 19]
BOXES = torch.tensor([[*FIRST, FAR], [*SECOND, FAR]], dtype=torch.float32)
VALID = torch.tensor([[True] * 5, [True, True, True, False, True]])


class ListeningSampler(RandomSampler):
    """Keeps its arguments."""

    def __init__(self):
        super().__init__(4, 0.25, add_gt_as_proposals=False)
        self.received = []

    def sample(self, assign_result, pred_instances, gt_instances, **kwargs):
        self.received.append((assign_result, pred_instances))
        return super().sample(assign_result, pred_instances, gt_instances, **kwargs)


def ground_truth():
    return GroundTruth.pad(
        [
            instances([[0, 0, 20, 20], [50, 50, 90, 90]], [2, 0]),
            instances([[60, 0, 90, 30]], [1]),
        ],
        None,
    )


def assigner():
    return MaxIoUAssigner(0.6, 0.5, match_low_quality=False)


def test_assign_calls_other_assigners_per_image():
    gts = ground_truth()
    actual = gts.assign(BOXES, VALID, assigner())
    assert actual.tolist() == [[1, 1, 2, 2, 0], [0, 1, 1, -1, 0]]


def test_assign_passes_ignore_regions_of_each_image():
    ignored = [None, instances([[58, 0, 94, 32]], [0])]
    gts = GroundTruth.pad(ground_truth().instances, ignored)
    assigner = MaxIoUAssigner(0.6, 0.5, match_low_quality=False, ignore_iof_thr=0.5)
    actual = gts.assign(BOXES, VALID, assigner)
    assert actual.tolist() == [[1, 1, 2, 2, 0], [0, -1, -1, -1, 0]]


def test_sample_passes_what_mmdet_passes():
    gts, sampler = ground_truth(), ListeningSampler()
    gt_inds = gts.assign(BOXES, VALID, assigner())
    gts.sample(BOXES, VALID, gt_inds, sampler)
    for image, (received, candidates) in enumerate(sampler.received):
        priors = InstanceData(priors=BOXES[image][VALID[image]])
        mmdets = assigner().assign(priors, gts.instances[image])
        assert received.num_gts == mmdets.num_gts
        assert torch.equal(received.gt_inds, mmdets.gt_inds)
        assert torch.equal(received.labels, mmdets.labels)
        assert torch.equal(received.max_overlaps, mmdets.max_overlaps)
        assert torch.equal(candidates.priors, priors.priors)
    assert len(sampler.received) == 2


def test_sample_chooses_as_mmdet_does():
    gts, mmdets = ground_truth(), RandomSampler(4, 0.25, add_gt_as_proposals=False)
    gt_inds = gts.assign(BOXES, VALID, assigner())
    torch.manual_seed(3)
    sampled, avg_factor = gts.sample(BOXES, VALID, gt_inds, mmdets)
    torch.manual_seed(3)
    total = 0
    for image, gt in enumerate(gts.instances):
        inside = VALID[image].nonzero().squeeze(1)
        assigned = gt_inds[image][inside]
        labels = torch.tensor(
            [-1 if i < 1 else int(gt.labels[i - 1]) for i in assigned]
        )
        result = mmdets.sample(
            AssignResult(len(gt), assigned, torch.zeros(len(inside)), labels),
            InstanceData(priors=BOXES[image][inside]),
            gt,
        )
        expected = torch.full((5,), -1)
        for chosen in (result.pos_inds, result.neg_inds):
            expected[inside[chosen]] = assigned[chosen]
        assert torch.equal(sampled[image], expected)
        assert (sampled[image] > 0).sum() == 1  # a quarter of four
        total += result.avg_factor
    assert avg_factor == total > 2


def test_targets_hold_each_anchors_matched_ground_truth():
    gts = ground_truth()
    gt_inds = torch.tensor([[1, 2, 0, -1, 2], [0, 1, -1, -1, 0]])
    targets = gts.targets(BOXES, gt_inds, num_classes=3, pos_weight=-1)
    assert targets.labels.tolist() == [[2, 0, 3, 3, 0], [3, 1, 3, 3, 3]]
    assert targets.label_weights.tolist() == [[1, 1, 1, 0, 1], [1, 1, 0, 0, 1]]
    assert targets.positive.tolist() == (gt_inds > 0).tolist()
    assert targets.box_rows(select=True).tolist() == [0, 1, 4, 6]
    assert targets.matched_bboxes(targets.box_rows(select=True)).tolist() == [
        [0, 0, 20, 20],
        [50, 50, 90, 90],
        [50, 50, 90, 90],
        [60, 0, 90, 30],
    ]
    assert int(targets.avg_factor) == 4
    weighted = gts.targets(BOXES, gt_inds, num_classes=3, pos_weight=2.5)
    assert weighted.label_weights.tolist() == [[2.5, 2.5, 1, 0, 2.5], [1, 2.5, 0, 0, 1]]


@pytest.mark.parametrize(('pos_weight', 'expected'), [(0, 1.0), (0.5, 0.5), (1, 1.0)])
def test_targets_weigh_positives_by_pos_weight(pos_weight, expected):
    gt_inds = torch.tensor([[1, 0, -1, 0, 0], [0, 0, 0, 0, 0]])
    targets = ground_truth().targets(BOXES, gt_inds, 3, pos_weight)
    assert targets.label_weights[0].tolist() == [expected, 1, 0, 1, 1]


@pytest.mark.parametrize('select', [True, False])
def test_matched_bboxes_are_those_of_the_own_image(select):
    boxes = [[[i, 0, i + 9, 9], [i, 20, i + 9, 29]] for i in (0, 30, 60)]
    gts = GroundTruth.pad([instances(b, [i, 0]) for i, b in enumerate(boxes)], None)
    gt_inds = torch.tensor([[2], [1], [2]])
    targets = gts.targets(BOXES[:1, :1], gt_inds, 3, -1)
    assert targets.matched_bboxes(targets.box_rows(select)).tolist() == [
        boxes[0][1],
        boxes[1][0],
        boxes[2][1],
    ]
    assert targets.labels.tolist() == [[0], [1], [0]]


def test_pad_keeps_ignore_regions_of_a_single_image():
    gts = GroundTruth.pad([instances([], [])], [instances([[1, 2, 3, 4]], [0])])
    assert gts.ignore_bboxes.tolist() == [[[1, 2, 3, 4]]]


def test_targets_count_an_image_without_positives_as_one():
    gts = GroundTruth.pad([instances([], []), instances([], [])], None)
    gt_inds = torch.zeros((2, 5), dtype=torch.long)
    targets = gts.targets(BOXES, gt_inds, num_classes=3, pos_weight=-1)
    assert int(targets.avg_factor) == 2
    assert len(targets.box_rows(select=True)) == 0
    assert (targets.labels == 3).all()


def test_positive_ious_do_not_depend_on_row_selection():
    gts = ground_truth()
    gt_inds = torch.tensor([[1, 2, 0, -1, 2], [0, 1, -1, -1, 0]])
    moved = BOXES + 3
    expected = torch.zeros(2, 5)
    for image, anchor in (gt_inds > 0).nonzero().tolist():
        gt = gts.bboxes[image, gt_inds[image, anchor] - 1]
        expected[image, anchor] = bbox_overlaps(moved[image, anchor][None], gt[None])
    assert (expected[gt_inds > 0] > 0).sum() == 2
    for select in (True, False):
        targets = gts.targets(BOXES, gt_inds, 3, -1, select_rows=select)
        torch.testing.assert_close(targets.positive_ious(moved), expected)
    # One set of boxes for all images, as prior anchors are.
    shared = targets.positive_ious(moved[:1])
    assert torch.equal(shared, targets.positive_ious(moved[[0, 0]]))


def test_sample_handles_an_image_without_objects():
    gts = GroundTruth.pad([instances([], []), instances([], [])], None)
    sampler = ListeningSampler()
    gt_inds = torch.zeros(VALID.shape, dtype=torch.long)
    gts.sample(BOXES, VALID, gt_inds, sampler)
    assert [received.max_overlaps.tolist() for received, _ in sampler.received] == [
        [0.0] * 5,
        [0.0] * 4,
    ]
