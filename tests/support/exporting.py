"""Small detectors to export, and what mmdet itself makes of images."""

import math

import cv2
import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.model import BaseModule
from torch import nn

from tests.support import other_heads


@MODELS.register_module()
class ToyPyramid(BaseModule):
    """One strided convolution per level, straight from the pixels.

    A wave over the places makes them differ where pixels are equal: of equal scores,
    engines may suppress different ones.
    """

    def __init__(self, strides, in_channels=3):
        super().__init__()
        convs = (
            nn.Conv2d(in_channels, other_heads.CHANNELS, 3, stride, 1)
            for stride in strides
        )
        self.levels = nn.ModuleList(convs)

    def forward(self, x):
        levels = [level(x).relu() for level in self.levels]
        return tuple(level + wave(*level.shape[-2:]) for level in levels)


def wave(height, width):
    """Small values, (height, width), that differ from place to place."""
    return 0.1 * (
        torch.arange(height).float()[:, None].sin() + torch.arange(width).float().cos()
    )


def toy_detector(head, in_channels=3, **test_cfg):
    """A detector with a built head, whose scores and boxes are neither equal nor tiny.

    The head gets normal weights, so that there are detections in any noise.
    """
    strides = [stride[0] for stride in head.prior_generator.strides]
    mean, std = ([value] * in_channels for value in (120.0, 60.0))
    detector = MODELS.build(
        ConfigDict(
            type='SingleStageDetector',
            data_preprocessor=dict(
                type='DetDataPreprocessor',
                mean=mean,
                std=std,
                bgr_to_rgb=in_channels == 3,
                pad_size_divisor=8,
            ),
            backbone=dict(type='ToyPyramid', strides=strides, in_channels=in_channels),
            bbox_head=dict(type='RetinaHead', num_classes=1, in_channels=1),
        )
    )
    detector.bbox_head = head
    head.test_cfg.update(score_thr=0.3, nms_pre=150, max_per_img=20, **test_cfg)
    torch.manual_seed(0)
    boxes = {id(getattr(*place)) for place in head.box_output_layers()}
    for module in detector.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            gain = 0.4 if id(module) in boxes else 1.5
            module.weight.data.normal_(std=gain / math.sqrt(fan_in))
            if module.bias is not None:
                module.bias.data.normal_(std=0.3)
        if type(module).__name__ == 'LaterOutput':
            module.weight.data.normal_(std=0.2 / math.sqrt(module.weight[0].numel()))
    return detector.eval()


def make_images(batch, height, width, channels=3):
    """Images of several sizes in one array, and the size of each."""
    rng = np.random.default_rng(batch * height)
    sizes = [(height - 7 * i, width - 5 * i) for i in range(batch)]
    images = np.zeros((batch, height, width, channels), np.uint8)
    for image, (high, wide) in zip(images, sizes):
        noise = rng.integers(0, 256, (9, 9, channels), dtype=np.uint8)
        image[:high, :wide] = cv2.resize(noise, (wide, high)).reshape(high, wide, -1)
    return images, np.array(sizes, np.int64)


def by_mmdet(detector, images, sizes, **test_cfg):
    """mmdet's own preprocessing and prediction. With test_cfg, no suppression."""
    inputs, samples = [], []
    for image, (high, wide) in zip(images, sizes.tolist()):
        bgr = image[:high, :wide, ::-1].transpose(2, 0, 1).copy()
        inputs.append(torch.from_numpy(bgr))
        meta = dict(
            img_shape=(high, wide), ori_shape=(high, wide), scale_factor=(1.0, 1.0)
        )
        samples.append(DetDataSample(metainfo=meta))
    with torch.no_grad():
        data = dict(inputs=inputs, data_samples=samples)
        if not test_cfg:
            return [s.pred_instances for s in detector.test_step(data)]
        data = detector.data_preprocessor(data)
        return detector.bbox_head.predict_by_feat(
            *detector.bbox_head(detector.extract_feat(data['inputs'])),
            batch_img_metas=[sample.metainfo for sample in data['data_samples']],
            cfg=ConfigDict(min_bbox_size=-1, **test_cfg),
            rescale=False,
            with_nms=False,
        )


def assert_same_detections(outputs, expected):
    """Boxes (N, K, 4), scores and labels (N, K) are mmdet's, padded to K.

    Scores agree within 1e-4, boxes within 1e-4 of their coordinates in pixels, and at
    least 1e-4 pixels. The order of equal scores does not matter; of those equal to the
    last one, others may be left out.
    """
    for boxes, scores, labels, found in zip(*outputs, expected):
        found = found[found.scores.argsort(descending=True)]  # PAA's are by class
        count = len(found)
        assert (labels[count:] == -1).all()
        assert (scores[count:] == 0).all()
        np.testing.assert_allclose(scores[:count], found.scores, atol=1e-4)
        if count == len(scores):
            found = found[found.scores > found.scores[-1] + 1e-4]
            count = len(found)
        assert count > 3, 'the test needs detections'
        assert_same_set(
            rows(boxes[:count], scores[:count], labels[:count]),
            rows(*(found[k].numpy() for k in ('bboxes', 'scores', 'labels'))),
        )


def rows(boxes, scores, labels):
    return np.concatenate([boxes, scores[:, None], 100 * labels[:, None]], axis=1)


def assert_same_set(found, expected):
    """Each row has its twin; the order of equal scores does not matter."""
    apart = np.abs(found[:, None] - expected[None])
    tolerance = np.array([1e-4] * 6) * np.maximum(1, np.abs(expected))
    twins = (apart <= tolerance).all(axis=2)
    for axis in (0, 1):
        assert twins.any(axis=axis).all(), apart.max(2).min(1)
