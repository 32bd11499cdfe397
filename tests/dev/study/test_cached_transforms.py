import numpy as np
from mmcv.transforms import BaseTransform

from tools.dev.study.cached_transforms import CachedTransforms


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
