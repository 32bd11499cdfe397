import json

import cv2
import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.structures.bbox import bbox_overlaps

from tools.dev.study import occlusion


@pytest.fixture(scope='module')
def scenes():
    return occlusion.split_scenes('val', 12)


def test_split_scenes_depend_on_seed_and_split_only(scenes):
    again = occlusion.split_scenes('val', 3)
    for first, second in zip(scenes, again):
        for one, two in zip(first, second):
            np.testing.assert_array_equal(one, two)
    for other in (
        occlusion.split_scenes('test', 1)[0],
        occlusion.split_scenes('val', 1, seed=1)[0],
        scenes[1],
    ):
        assert not np.array_equal(scenes[0].image, other.image)


def test_make_scene_boxes_span_the_visible_part_of_each_object(monkeypatch):
    # Without texture and noise every object keeps one colour, so that what is seen
    # of it can be found again in the picture.
    colours = iter(np.arange(1, 200).repeat(3).reshape(-1, 3).astype(float))
    monkeypatch.setattr(
        occlusion,
        '_paint',
        lambda rng, mean, spread, cell: np.tile(
            next(colours), (occlusion.HEIGHT, occlusion.WIDTH, 1)
        ),
    )

    class Silent(np.random.RandomState):
        def normal(self, loc, scale, size):
            return np.zeros(size)

    scene = occlusion.make_scene(Silent(3), min_visible=0.3)
    image = scene.image[..., 0]
    spans = {}
    for colour in np.unique(image)[1:]:  # the first colour is the ground
        ys, xs = np.nonzero(image == colour)
        spans[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] = len(xs)
    assert len(scene.boxes) >= 5
    assert {tuple(box) for box in scene.boxes.tolist()} <= set(spans)
    # Objects left out exist, and are those that are hidden or tiny.
    assert len(spans) > len(scene.boxes)
    assert (scene.visible >= 0.3).all()
    assert (scene.visible < 1).any()


@pytest.mark.parametrize('label', range(len(occlusion.CLASSES)))
def test_shape_mask_is_centred_and_has_the_given_size(label):
    mask = occlusion.shape_mask(label, np.array([100.0, 80.0]), np.array([40, 20]), 0.0)
    ys, xs = np.nonzero(mask)
    assert abs(xs.mean() - 99.5) < 1
    assert xs.min() >= 60
    assert xs.max() < 140
    assert ys.min() >= 60
    assert ys.max() < 100
    assert np.ptp(xs) > 60
    assert np.ptp(ys) > 30
    turned = occlusion.shape_mask(
        label, np.array([100.0, 80.0]), np.array([40, 20]), np.pi / 2
    )
    assert abs(int(turned.sum()) - int(mask.sum())) < 0.05 * mask.sum()
    assert np.ptp(np.nonzero(turned)[0]) > 60


def test_make_scene_objects_overlap_often(scenes):
    highest = []
    for scene in scenes:
        boxes = torch.from_numpy(scene.boxes).float()
        overlaps = bbox_overlaps(boxes, boxes).fill_diagonal_(0)
        highest += overlaps.amax(1).tolist()
    highest = np.array(highest)
    assert len(highest) / len(scenes) > 7
    assert (highest > 0.2).mean() > 0.3
    sizes = np.concatenate([(s.boxes[:, 2:] - s.boxes[:, :2]).max(1) for s in scenes])
    assert np.percentile(sizes, 90) > 2.5 * np.percentile(sizes, 10)


def test_build_writes_a_set_that_mmdet_reads_once(tmp_path, scenes):
    splits = dict(train=1, val=3, test=1)
    out = occlusion.build(tmp_path / 'set', splits=splits)
    assert [p.name for p in tmp_path.iterdir()] == ['set']
    image = cv2.imread(str(out / 'images/val/0002.png'))
    np.testing.assert_array_equal(image, scenes[2].image)
    dataset = CocoDataset(
        ann_file='annotations/val.json',
        data_root=str(out),
        data_prefix=dict(img='images/val/'),
        metainfo=dict(classes=occlusion.CLASSES),
        pipeline=[],
        test_mode=True,
    )
    assert len(dataset) == 3
    instances = dataset.get_data_info(2)['instances']
    np.testing.assert_array_equal([i['bbox'] for i in instances], scenes[2].boxes)
    np.testing.assert_array_equal(
        [i['bbox_label'] for i in instances], scenes[2].labels
    )

    before = (out / 'recipe.json').stat().st_mtime_ns
    occlusion.build(out, splits=splits)
    assert (out / 'recipe.json').stat().st_mtime_ns == before
    with pytest.raises(ValueError, match='contains another set'):
        occlusion.build(out, seed=1, splits=splits)
    json.loads((out / 'annotations/test.json').read_text())
