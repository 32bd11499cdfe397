"""The GPU's way through the head's loss stays cheap, though no GPU is there to tell."""

import pytest
import torch

from mmdet_consistent.losses import focal
from tests.support.waits import Waits
from tools.dev.benchmark.cases import Case, Contender
from tools.dev.benchmark.detectors import build_slim_head
from tools.dev.gpu import budget as budget_module
from tools.dev.gpu.budget import measure_budget

pytest.importorskip('triton', '3.0', reason='Triton 3 has wheels for Linux alone')

# Launches, bytes moved and peak of a step with 8 images.
LIMITS = {
    ('retinanet', 'float32'): (350, 8.0e9, 1.3e9),
    ('retinanet', 'float16'): (350, 6.0e9, 0.7e9),
    ('ssd', 'float32'): (400, 2.0e9, 0.4e9),
    ('ssd', 'float16'): (400, 2.0e9, 0.4e9),
}
SIZES = dict(retinanet=(800, 1333), ssd=(512, 512))


def slim_head(detector):
    height, width = SIZES[detector]
    case = Case(detector=detector, height=height, width=width)
    return build_slim_head(case, Contender('consistent'))


@pytest.mark.parametrize(('detector', 'dtype'), LIMITS)
def test_head_loss_keeps_its_budget_at_any_number_of_objects(detector, dtype):
    launches, moved, peak = LIMITS[detector, dtype]
    few, many = (
        measure_budget(
            slim_head(detector),
            batch=8,
            size=SIZES[detector],
            gts=gts,
            dtype=getattr(torch, dtype),
        )
        for gts in (7, 100)
    )
    assert few.launches == many.launches <= launches
    assert max(few.moved, many.moved) <= moved
    assert max(few.peak, many.peak) <= peak
    assert many.moved < 1.01 * few.moved


@pytest.mark.parametrize('detector', SIZES)
def test_head_loss_copies_no_list_to_the_device(detector):
    head = slim_head(detector)
    with Waits() as waits:
        measure_budget(head, batch=2, size=SIZES[detector], gts=7)
    copies = [name for name in waits.found if 'tensor' in name]
    assert copies == []


def test_measure_budget_counts_operations_bytes_and_memory():
    counter = budget_module._Counter()
    x = torch.zeros(100)
    counter.ignore([x])
    with counter:
        y = x.view(10, 10) + 1  # reads and writes 400 bytes
        z = y * y  # reads 400 twice, and writes 400
        del y
        w = z.sum()
    assert counter.budget.launches == 3
    assert counter.budget.moved == 800 + 1200 + 404
    assert counter.budget.peak == 800
    assert w == 100


def test_measure_budget_notices_the_eager_focal_loss(monkeypatch):
    """The budget would break if the kernels were not used."""
    kernels = measure_budget(slim_head('retinanet'), batch=2, size=(256, 256), gts=7)

    def eager(logits, labels, weights, gamma, alpha):
        tensors = *logits, *labels, *weights
        return focal._FocalLosses.apply(gamma, alpha, False, len(logits), *tensors)

    monkeypatch.setattr('mmdet_consistent.losses.focal_kernel.focal_sums', eager)
    without = measure_budget(slim_head('retinanet'), batch=2, size=(256, 256), gts=7)
    assert without.launches > kernels.launches
    assert without.moved > 2 * kernels.moved
