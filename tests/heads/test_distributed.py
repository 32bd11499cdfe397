"""Several processes: as mmdet's heads by default, as one process if synchronised.

Whole detectors in DistributedDataParallel, which never has to look for unused
parameters; ranks with unequal ground truth, or with none.
"""

import functools
import multiprocessing

import pytest
import torch
import torch.multiprocessing as mp

from tests.support import ddp_cases

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module', params=[2, 4])
def ranks(request, tmp_path_factory):
    """What each of 2 or 4 processes found, by case."""
    folder = tmp_path_factory.mktemp(f'world{request.param}')
    # One process imports mmdet; the others are its forks.
    multiprocessing.set_forkserver_preload(['mmdet_consistent'])
    mp.start_processes(
        ddp_cases.work,
        (request.param, folder / 'init', folder),
        nprocs=request.param,
        start_method='forkserver',
    )
    return [torch.load(folder / f'rank{rank}.pth') for rank in range(request.param)]


@functools.cache
def alone(variant, layout):
    model = ddp_cases.detector(variant, sync_normalizer=True)
    return ddp_cases.losses_and_gradients(model, layout, slice(None))


@pytest.mark.parametrize(('variant', 'layout'), ddp_cases.CASES)
def test_synced_processes_equal_one_process_with_all_images(ranks, variant, layout):
    expected_losses, expected = alone(variant, layout)
    for rank in ranks:
        losses, actual = rank[variant, layout]
        assert losses.keys() == expected_losses.keys()
        for key, value in expected_losses.items():
            # Counts are logged as they are on a rank: their mean times the ranks.
            scale = len(ranks) if key.startswith('num_pos') else 1
            torch.testing.assert_close(losses[key] * scale, value, msg=key)
        for key, value in expected.items():
            assert value is not None, key
            # Gradients of one tensor are sums of terms of much the same size.
            atol = 1e-5 * float(value.abs().max())
            torch.testing.assert_close(
                actual[key], value, rtol=1e-4, atol=atol, msg=key
            )


@pytest.mark.parametrize(('variant', 'base'), ddp_cases.BASES.items())
def test_baseline_equals_mmdets_head_on_each_process(ranks, variant, base):
    for rank in ranks:
        theirs, expected = rank[variant, base]
        losses, actual = rank[variant, 'ours']
        for key, value in theirs.items():
            torch.testing.assert_close(losses[key], value, rtol=2e-6, atol=0, msg=key)
        for key, value in expected.items():
            atol = 2e-6 * float(value.abs().max()) + 1e-9
            torch.testing.assert_close(actual[key], value, rtol=0, atol=atol, msg=key)
