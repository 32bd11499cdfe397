"""A training of several processes resumes bit for bit after one was killed."""

import multiprocessing

import pytest
import torch
import torch.multiprocessing as mp

from mmdet_consistent.engine.folder_lock import FolderLock
from tests.support.processes import free_port
from tests.support.toy import same_weights, train_toy_rank

WORLD = 2

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module', autouse=True)
def fork_ranks_from_a_process_that_has_imported_mmdet():
    multiprocessing.set_forkserver_preload(['tests.support.toy'])


def train(folder, kill=None, **options):
    """What each rank found: its model's weights and its log."""
    folder.mkdir(exist_ok=True)
    mp.start_processes(
        train_toy_rank,
        (WORLD, free_port(), folder, kill, options),
        nprocs=WORLD,
        start_method='forkserver',
    )
    return [torch.load(folder / f'rank{rank}.pt') for rank in range(WORLD)]


@pytest.mark.parametrize(
    'options',
    [dict(epochs=4, workers=1), dict(iters=8, checkpoint=dict(interval=2))],
    ids=['epochs', 'iterations'],
)
def test_resumed_ranks_equal_uninterrupted_ones(tmp_path, options):
    options = dict(options, validate=True)
    whole = train(tmp_path / 'whole', **options)
    # A rank in the second epoch, then one in the first validation after it.
    for kill in [('before_train_iter', 4, 1), ('before_val_iter', 1, 0)]:
        with pytest.raises(mp.ProcessExitedException, match='SIGKILL'):
            train(tmp_path / 'cut', kill=kill, resume=True, **options)
    cut = train(tmp_path / 'cut', resume=True, **options)
    losses = []
    for (whole_weights, whole_log), (weights, log) in zip(whole, cut):
        assert same_weights(weights, whole_weights)
        assert log == whole_log[-len(log) :]
        assert len(log) < len(whole_log)
        losses.append([entry for entry in log if entry[0] == 'train'])
    # Each rank has its own share of the data; the weights are the same.
    assert losses[0] != losses[1]
    assert same_weights(cut[0][0], cut[1][0])
    # The validation that was cut off was run again, by all ranks alike.
    validations = [[e for e in log if e[0] == 'val'] for _, log in cut]
    assert validations[0] == validations[1]
    assert len(validations[0]) == 2


def test_all_ranks_stop_if_the_folder_is_in_use(tmp_path):
    lock = FolderLock(tmp_path)
    lock.acquire()
    with pytest.raises(mp.ProcessRaisedException, match='is in use by another'):
        train(tmp_path)
    assert not list(tmp_path.glob('*.pt*'))
    lock.release()
    assert len(train(tmp_path, epochs=1)) == WORLD
