import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mmdet_consistent.engine.checkpoint import CheckpointError
from mmdet_consistent.engine.hooks import SafeCheckpointHook
from mmdet_consistent.utils import atomic
from tests.support.toy import Killed, train_toy


def names(folder):
    return {path.name for path in Path(folder).glob('*.pth*')}


def test_kill_while_writing_leaves_the_last_good_checkpoint(tmp_path, monkeypatch):
    train_toy(tmp_path, epochs=2)
    before = (tmp_path / 'epoch_2.pth').read_bytes()
    real = os.fsync

    def killed_while_syncing(descriptor):
        os.ftruncate(descriptor, 100)  # half of it is on the disk
        raise Killed

    monkeypatch.setattr(os, 'fsync', killed_while_syncing)
    with pytest.raises(Killed):
        train_toy(tmp_path, epochs=4, resume=True)
    monkeypatch.setattr(os, 'fsync', real)
    assert names(tmp_path) == {'epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth.partial'}
    assert (tmp_path / 'epoch_2.pth').read_bytes() == before
    weights, log = train_toy(tmp_path, epochs=4, resume=True)
    assert log[0][1] == 8  # iterations a finished epoch: 4
    assert not list(tmp_path.glob('*.partial'))
    whole, _ = train_toy(tmp_path / 'whole', epochs=4)
    assert torch.equal(weights['layer.weight'], whole['layer.weight'])


@pytest.mark.parametrize('damage', ['cut off', 'flipped bit', 'empty', 'gone'])
def test_resuming_falls_back_to_the_last_good_checkpoint(tmp_path, damage, capsys):
    train_toy(tmp_path, epochs=3)
    newest = tmp_path / 'epoch_3.pth'
    content = bytearray(newest.read_bytes())
    if damage == 'gone':
        newest.unlink()
    else:
        if damage == 'flipped bit':
            weights = torch.load(newest)['state_dict']['layer.weight']
            content[content.index(weights.numpy().tobytes())] ^= 1
        newest.write_bytes(
            dict([('cut off', content[:-500]), ('empty', b'')]).get(damage, content)
        )
    _, log = train_toy(tmp_path, epochs=4, resume=True)
    assert log[0][1] == 8
    output = capsys.readouterr().out
    assert 'not resuming from' in output
    assert 'epoch_3.pth' in output
    assert f'going back to the last good one: {tmp_path}/epoch_2.pth' in output


def test_empty_pointer_file_is_ignored(tmp_path):
    train_toy(tmp_path, epochs=2)
    (tmp_path / 'last_checkpoint').write_text('')
    assert train_toy(tmp_path, epochs=3, resume=True)[1][0][1] == 8


def test_moved_work_folder_resumes(tmp_path):
    train_toy(tmp_path / 'old', epochs=2)
    (tmp_path / 'old').rename(tmp_path / 'new')
    assert train_toy(tmp_path / 'new', epochs=3, resume=True)[1][0][1] == 8


def test_resuming_without_a_good_checkpoint_is_an_error(tmp_path):
    train_toy(tmp_path, epochs=1)
    (tmp_path / 'epoch_1.pth').write_bytes(b'nonsense')
    with pytest.raises(CheckpointError, match=r'no checkpoint in .* can be resumed'):
        train_toy(tmp_path, resume=True)
    # No checkpoint at all: training starts from the beginning, as mmengine's does.
    assert train_toy(tmp_path / 'fresh', epochs=1, resume=True)[1][0][1] == 0


def test_weights_alone_cannot_be_resumed(tmp_path):
    weights, _ = train_toy(tmp_path / 'a', epochs=1)
    torch.save(dict(state_dict=weights), tmp_path / 'weights.pth')
    with pytest.raises(CheckpointError, match='has no meta, message_hub, optimizer'):
        train_toy(tmp_path / 'b', resume=True, load_from=tmp_path / 'weights.pth')
    train_toy(tmp_path / 'b', epochs=1, load_from=tmp_path / 'weights.pth')


def test_old_checkpoint_is_removed_after_the_new_one_is_written(tmp_path, monkeypatch):
    kept = dict(checkpoint=dict(max_keep_ckpts=1))
    seen = []
    real = atomic.write

    def spy(path, content):
        if Path(path).suffix == '.pth':
            seen.append(names(tmp_path))
        real(path, content)

    monkeypatch.setattr(atomic, 'write', spy)
    train_toy(tmp_path, epochs=3, **kept)
    assert seen == [set(), {'epoch_1.pth'}, {'epoch_2.pth'}]
    assert names(tmp_path) == {'epoch_3.pth'}
    train_toy(tmp_path, epochs=5, resume=True, **kept)
    assert names(tmp_path) == {'epoch_5.pth'}


def test_checkpoints_within_an_epoch_give_a_warning(tmp_path, capsys):
    train_toy(tmp_path, epochs=1, checkpoint=dict(by_epoch=False, interval=3))
    assert 'in a training by epochs' in capsys.readouterr().out


def test_best_checkpoint_is_kept(tmp_path):
    options = dict(
        validate=True, checkpoint=dict(save_best='mAP', rule='less', max_keep_ckpts=1)
    )
    _, log = train_toy(tmp_path, epochs=4, **options)
    best = min((e for e in log if e[0] == 'val'), key=lambda entry: entry[3])
    assert names(tmp_path) == {'epoch_4.pth', f'best_mAP_epoch_{best[1]}.pth'}


def test_validation_without_training_needs_no_folder(tmp_path):
    runner = SimpleNamespace(work_dir=str(tmp_path), _train_loop=dict())
    SafeCheckpointHook().after_val_epoch(runner, dict(mAP=0.5))
    assert not list(tmp_path.iterdir())


def test_full_disk_is_named_and_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'file'
    atomic.write(path, b'old')

    def full(descriptor):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match=r'No space left.*writing 0.0 MB with .* MB free'):
        atomic.write(path, b'new')
    assert path.read_bytes() == b'old'
    assert list(tmp_path.iterdir()) == [path]
