import pytest
import torch
from mmdet.models.task_modules.coders import BaseBBoxCoder

from mmdet_consistent import ChainedBBoxCoder
from tests.reference import consistent as reference

DELTA = dict(type='DeltaXYWHBBoxCoder')


def test_decode_chains_stages_and_clips_once():
    torch.manual_seed(0)
    corner = torch.rand(50, 2) * 80
    boxes = torch.cat([corner, corner + 5 + torch.rand(50, 2) * 60], dim=1)
    deltas = torch.randn(50, 12) * 0.5
    decoded = ChainedBBoxCoder([DELTA] * 3).decode(boxes, deltas, max_shape=(90, 100))
    for box, row, actual in zip(boxes.tolist(), deltas, decoded):
        for stage in range(3):
            box = reference.decode(box, row[4 * stage : 4 * stage + 4])
        x1, y1, x2, y2 = box
        clipped = [min(max(x1, 0), 100), min(max(y1, 0), 90)]
        clipped += [min(max(x2, 0), 100), min(max(y2, 0), 90)]
        torch.testing.assert_close(
            actual, torch.tensor(clipped).float(), rtol=1e-4, atol=1e-3
        )


def test_decode_passes_options_to_every_stage():
    box, deltas = (
        torch.tensor([[0.0, 0.0, 10.0, 10.0]]),
        torch.tensor([[0, 0, 2.0, 0] * 2]),
    )
    coder = ChainedBBoxCoder([DELTA] * 2)
    decoded = coder.decode(box, deltas, wh_ratio_clip=0.5)
    # Neither stage may more than double the width.
    torch.testing.assert_close(decoded, torch.tensor([[-15.0, 0.0, 25.0, 10.0]]))


class RotatedCoder(BaseBBoxCoder):
    encode_size = 5

    def encode(self, bboxes, gt_bboxes):
        raise NotImplementedError

    def decode(self, bboxes, bboxes_pred):
        raise NotImplementedError


def test_coder_without_four_deltas_is_refused():
    with pytest.raises(ValueError, match='stage 1 is RotatedCoder with 5 deltas'):
        ChainedBBoxCoder([DELTA, RotatedCoder()])


@pytest.mark.parametrize('name', ['target_means', 'target_stds'])
def test_coder_without_four_means_or_stds_is_refused(name):
    message = rf'stage 1 has {name}=\(0.5, 0.5, 0.5\); give four numbers'
    with pytest.raises(ValueError, match=message):
        ChainedBBoxCoder([DELTA, {**DELTA, name: [0.5] * 3}])


def test_encode_size_covers_all_values_of_a_box():
    assert ChainedBBoxCoder([DELTA] * 2).encode_size == 8
    assert ChainedBBoxCoder([DELTA] * 2, extra_values=3).encode_size == 11
    # mmdet would wrap the boxes otherwise.
    assert ChainedBBoxCoder([DELTA]).use_box_type is False


def test_encode_is_refused():
    with pytest.raises(NotImplementedError, match='stages'):
        ChainedBBoxCoder([DELTA]).encode(torch.zeros(1, 4), torch.zeros(1, 4))
