"""A training that was killed and resumed equals one that wasn't, bit for bit."""

import gc
import shutil

import pytest
import torch

from tests.support.toy import Killed, same_weights, train_toy


@pytest.fixture(scope='module', autouse=True)
def torch_does_not_wait_long_for_the_workers_of_a_killed_loader():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL', 0.1)
        yield
        gc.collect()


def stop_and_go(folder, kills, **options):
    """Train, killed at each of ``kills`` in turn and resumed; the last log wins."""
    for kill in kills:
        with pytest.raises(Killed):
            train_toy(folder, kill=kill, resume=True, **options)
        gc.collect()  # ends the killed loader's workers
    weights, log = train_toy(folder, resume=True, **options)
    return weights, {entry[:-1]: entry[-1] for entry in log}


@pytest.mark.parametrize(
    'workers',
    [dict(), dict(workers=2), dict(workers=2, persistent=True)],
    ids=['in the process', 'workers', 'persistent workers'],
)
@pytest.mark.parametrize(
    'options',
    [dict(epochs=3), dict(iters=8)],
    ids=['epochs', 'iterations'],
)
def test_resumed_training_equals_an_uninterrupted_one(tmp_path, workers, options):
    whole, whole_log = train_toy(tmp_path / 'whole', **workers, **options)
    # In the second epoch; and again, two iterations after having resumed.
    kills = [('before_train_iter', 6), ('after_train_iter', 2)]
    weights, log = stop_and_go(tmp_path / 'cut', kills, **workers, **options)
    assert same_weights(weights, whole)
    expected = {entry[:-1]: entry[-1] for entry in whole_log}
    assert log
    assert all(expected[key] == value for key, value in log.items())


@pytest.mark.parametrize(
    'options',
    [dict(epochs=2), dict(iters=6), dict(iters=6, workers=2)],
    ids=['epochs', 'iterations', 'iterations with workers'],
)
def test_training_without_a_seed_resumes_with_the_seed_that_was_drawn(
    tmp_path, options
):
    whole, _ = train_toy(tmp_path / 'whole', seed=None, **options)
    (tmp_path / 'cut').mkdir()
    middle = 'epoch_1.pth' if 'epochs' in options else 'iter_3.pth'
    shutil.copy(tmp_path / 'whole' / middle, tmp_path / 'cut')
    weights, log = train_toy(tmp_path / 'cut', seed=None, resume=True, **options)
    assert log
    assert same_weights(weights, whole)


def test_seed_all_gives_each_epoch_and_rank_its_own_numbers():
    from mmdet_consistent.engine.hooks.seed import seed_all

    drawn = set()
    for place in [(0, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 0), (0, 0, 0, 1)]:
        seed_all(*place)
        drawn.add(float(torch.rand(())))
    assert len(drawn) == 5
    seed_all(0, 0, 0)
    assert float(torch.rand(())) in drawn


@pytest.mark.parametrize('options', [dict(epochs=4), dict(iters=8)])
def test_interrupted_validation_is_run_again(tmp_path, options):
    options = dict(options, validate=True)
    _, whole = train_toy(tmp_path / 'whole', **options)
    validations = [entry for entry in whole if entry[0] == 'val']
    assert len(validations) == 2
    if 'iters' in options:
        options['checkpoint'] = dict(interval=4)
    with pytest.raises(Killed):
        train_toy(tmp_path / 'cut', kill=('before_val_iter', 5), **options)
    _, log = train_toy(tmp_path / 'cut', resume=True, **options)
    assert [entry for entry in log if entry[0] == 'val'] == validations[1:]
    # All is done: nothing is trained or validated a second time.
    assert train_toy(tmp_path / 'cut', resume=True, **options)[1] == []
