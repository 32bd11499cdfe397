"""Two processes train as one does with both their images."""

import pytest
import torch
import torch.multiprocessing as mp

from tests.heads.helpers import as_scalars, build_head, features, ground_truth, metas

WORLD = 2
pytestmark = pytest.mark.slow


def gradients(head, images, gts):
    losses = head.loss_by_feat(
        *head([level[images] for level in features()]), gts, metas(len(gts))
    )
    total = sum(v for k, v in as_scalars(losses).items() if 'loss' in k)
    total.backward()
    return total.detach(), {k: p.grad for k, p in head.named_parameters()}


def worker(rank, init_file, out_dir, gts):
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{init_file}', rank=rank, world_size=WORLD
    )
    loss, grads = gradients(build_head(), slice(rank, rank + 1), gts[rank : rank + 1])
    for tensor in [loss, *grads.values()]:
        torch.distributed.all_reduce(tensor)
        tensor /= WORLD
    torch.save((loss, grads), f'{out_dir}/rank{rank}.pth')
    torch.distributed.destroy_process_group()


# The second image has no ground truth at all; then both have, unequally many.
@pytest.mark.parametrize('second', ['empty', 'one box'])
def test_two_processes_equal_one(tmp_path, second):
    gts = ground_truth()
    if second == 'one box':
        gts[1] = gts[0][:1]
    mp.spawn(worker, (tmp_path / 'init', tmp_path, gts), nprocs=WORLD)
    expected_loss, expected = gradients(build_head(), slice(None), gts)
    for rank in range(WORLD):
        loss, actual = torch.load(tmp_path / f'rank{rank}.pth')
        torch.testing.assert_close(loss, expected_loss)
        for key, value in expected.items():
            torch.testing.assert_close(actual[key], value, rtol=1e-4, atol=1e-6)
