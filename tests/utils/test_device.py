"""The choice between kernels and PyTorch operators."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmdet_consistent.utils.device import may_use_kernels
from tests.support.builders import as_scalars, build_head, features, ground_truth, metas
from tests.support.kernels import DEVICE, kernels_everywhere

ROOT = Path(__file__).resolve().parents[2]


def test_kernels_are_not_used_on_a_cpu_or_for_float64():
    assert not may_use_kernels(torch.zeros(1))
    assert not may_use_kernels(torch.zeros(1, dtype=torch.float64, device=DEVICE))


@pytest.mark.parametrize('stages', [2, 3])
def test_training_step_with_kernels_equals_one_without(stages):
    pytest.importorskip('triton', '3.0', reason='Triton 3 has wheels for Linux alone')
    results = []
    for step in (loss_and_gradients, with_kernels(loss_and_gradients)):
        head = build_head(label_stages=stages, reg_stages=stages).to(DEVICE)
        results.append(step(head))
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-6)


def loss_and_gradients(head):
    inputs = [x.to(DEVICE) for x in features()]
    gts = [gt.to(DEVICE) for gt in ground_truth()]
    losses = as_scalars(head.loss_by_feat(*head(inputs), gts, metas()))
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    losses = {key: value.detach() for key, value in losses.items()}
    return losses, {name: p.grad for name, p in head.named_parameters()}


def with_kernels(step):
    def stepped(head):
        with kernels_everywhere():
            return step(head)

    return stepped


@pytest.mark.slow
def test_kernels_compile_for_gpus_that_are_not_there():
    pytest.importorskip('triton', '3.0', reason='Triton 3 has wheels for Linux alone')
    script = ROOT / 'tests' / 'support' / 'compile_kernels.py'
    result = subprocess.run(
        [sys.executable, script],
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'TRITON_INTERPRET': '0'},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert 'compiled for sm_90' in result.stdout
