import numpy as np
import pytest
from mmcv.transforms import BaseTransform

from tools.dev.study.cached_transforms import CachedTransforms, ResizeByOrientation


class Counting(BaseTransform):
    def __init__(self):
        self.calls = []

    def transform(self, results):
        self.calls.append(results['img_id'])
        if results['img_id'] == 9:
            return None
        return dict(results, img=np.full((2, 2), results['img_id']))


def test_cached_transforms_run_once_per_image_and_return_copies():
    inner = Counting()
    cached = CachedTransforms([inner])
    for _ in range(3):
        for img_id in (1, 2):
            results = cached(dict(img_id=img_id))
            assert (results['img'] == img_id).all()
            results['img'][:] = 77  # the caller's own: the cache keeps its pixels
    assert inner.calls == [1, 2]


def test_cached_transforms_remember_a_dropped_image():
    inner = Counting()
    cached = CachedTransforms([inner])
    assert cached(dict(img_id=9)) is None
    assert cached(dict(img_id=9)) is None
    assert inner.calls == [9]


@pytest.mark.parametrize(
    ('shape', 'resized'),
    [((60, 80), (40, 64)), ((80, 60), (64, 40)), ((80, 80), (40, 64))],
)
def test_resize_by_orientation_transposes_the_size_for_portraits(shape, resized):
    image = np.zeros((*shape, 3), np.uint8)
    transform = ResizeByOrientation(scale=(64, 40))
    results = transform(dict(img=image, img_shape=shape))
    assert results['img'].shape[:2] == results['img_shape'] == resized
    width, height = results['scale_factor']
    assert (width * shape[1], height * shape[0]) == pytest.approx(resized[::-1])
