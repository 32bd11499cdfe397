"""Nothing in a file is executed, and a bad file is named."""

import pickle
import zipfile

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner import CheckpointLoader, load_checkpoint
from torch import nn

import mmdet_consistent.engine.safe  # noqa: F401
from mmdet_consistent.engine import restricted_pickle
from mmdet_consistent.engine.architecture import compare
from mmdet_consistent.engine.checkpoint import CheckpointError, load, newest_good


class Reduce:
    """Pickles as a call of ``function`` with ``arguments``."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def name(module, attribute):
    return f'c{module}\n{attribute}\n'.encode()


def text(value):
    return b'X' + len(value).to_bytes(4, 'little') + value.encode()


def look_up(owner, attribute):
    return name('__builtin__', 'getattr') + owner + text(attribute) + b'\x86R'


def hidden_exec(code):
    """A pickle without a single name that looks bad.

    ``exec`` is reached by look-ups, put in the place of a method of an allowed
    class, and called by pickle itself.
    """
    builtins = look_up(name('__builtin__', 'getattr'), '__self__')
    instance = name('mmengine.logging.history_buffer', 'HistoryBuffer') + b')\x81'
    planted = b'}' + text('__setstate__') + look_up(builtins, 'exec') + b's'
    return b'\x80\x02' + instance + planted + b'b' + text(code) + b'b.'


def with_pickle(path, content):
    """A checkpoint whose pickle is ``content``."""
    torch.save(dict(state_dict={}), path)
    with zipfile.ZipFile(path) as old:
        records = {n: old.read(n) for n in old.namelist()}
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_STORED) as new:
        for record, value in records.items():
            new.writestr(record, content if record.endswith('data.pkl') else value)


@pytest.mark.parametrize('kind', ['open', 'eval', 'exec by look-up', 'import'])
@pytest.mark.parametrize('loader', [load, CheckpointLoader.load_checkpoint])
def test_malicious_file_is_refused_and_not_executed(tmp_path, kind, loader):
    owned = tmp_path / 'owned'
    code = f'open({str(owned)!r}, "w").close()'
    path = tmp_path / 'bad.pth'
    if kind == 'open':
        torch.save(dict(state_dict=Reduce(open, str(owned), 'w')), path)
    elif kind == 'eval':
        torch.save(dict(state_dict={}, message_hub=Reduce(eval, code)), path)
    elif kind == 'exec by look-up':
        with_pickle(path, hidden_exec(code))
    else:
        torch.save(dict(state_dict={}, meta=Reduce(__import__, 'antigravity')), path)
    with pytest.raises(CheckpointError, match='not plain weights') as error:
        loader(str(path))
    assert str(path) in str(error.value)
    assert not owned.exists()


def test_hidden_exec_would_run_if_getattr_were_allowed(tmp_path, monkeypatch):
    """Shows that the test above tests something."""
    owned = tmp_path / 'owned'
    path = tmp_path / 'bad.pth'
    with_pickle(path, hidden_exec(f'open({str(owned)!r}, "w").close()'))
    if not restricted_pickle.HAS_ALLOW_LIST:  # torch < 2.4
        monkeypatch.setattr(restricted_pickle, '_ALLOWED', {})
        restricted_pickle.add_safe_globals([HistoryBuffer, getattr])
        restricted_pickle.torch_load(path)
    else:
        allowed = list(torch.serialization.get_safe_globals())
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals([HistoryBuffer, getattr])
        try:
            torch.load(path, weights_only=True)
        finally:
            torch.serialization.clear_safe_globals()
            torch.serialization.add_safe_globals(allowed)
    assert owned.exists()


@pytest.mark.skipif(
    not restricted_pickle.HAS_ALLOW_LIST, reason='torch < 2.4 has no allow-list'
)
def test_loading_leaves_the_allow_list_of_torch_2_4_as_it_was(tmp_path, monkeypatch):
    """There it is a list, which is returned itself and grows in place."""
    allowed = [Reduce]
    functions = dict(
        get_safe_globals=lambda: allowed,
        add_safe_globals=allowed.extend,
        clear_safe_globals=allowed.clear,
    )
    for name, function in functions.items():
        monkeypatch.setattr(torch.serialization, name, function)
    torch.save(dict(state_dict={}), tmp_path / 'c.pth')
    load(tmp_path / 'c.pth')
    assert allowed == [Reduce]
    for _ in range(2):
        restricted_pickle.add_safe_globals([Reduce, HistoryBuffer])
        assert allowed == [Reduce, HistoryBuffer]


def test_config_in_the_meta_data_is_dropped(tmp_path):
    torch.save(dict(state_dict={}, meta=dict(config='exit()', epoch=1)), tmp_path / 'c')
    assert load(tmp_path / 'c')['meta'] == dict(epoch=1)


def test_message_hub_of_mmengine_loads(tmp_path):
    hub = MessageHub('test_checkpoint')
    for value in (1.0, np.float32(2), np.float64(3)):
        hub.update_scalar('train/loss', value)
    torch.save(dict(state_dict={}, message_hub=hub.state_dict()), tmp_path / 'c.pth')
    loss = load(tmp_path / 'c.pth')['message_hub']['log_scalars']['train/loss']
    assert loss.statistics('mean') == 2


def big_checkpoint(path):
    torch.save(dict(state_dict=dict(weight=torch.arange(1000.0))), path)
    return path.read_bytes()


@pytest.mark.parametrize('share', [0, 0.01, 0.5, 0.9, 0.999])
def test_truncated_file_is_named(tmp_path, share):
    path = tmp_path / 'cut.pth'
    content = big_checkpoint(path)
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match=r'cut\.pth .*cut off'):
        load(path)


def test_flipped_bit_is_found_by_the_checksum(tmp_path):
    path = tmp_path / 'flipped.pth'
    content = bytearray(big_checkpoint(path))
    content[content.index(torch.arange(1000.0).numpy().tobytes()) + 1000] ^= 4
    path.write_bytes(content)
    torch.load(path)  # torch alone doesn't notice
    with pytest.raises(CheckpointError, match='checksum'):
        load(path)


@pytest.mark.parametrize(
    'content',
    [b'hello', b'\x89PNG\r\n', b'PK\x03\x04rest', pickle.dumps([1, 2]), b'\x80\x02N.'],
)
def test_file_of_another_format_is_named(tmp_path, content):
    (tmp_path / 'foreign.pth').write_bytes(content)
    with pytest.raises(CheckpointError, match=r'foreign\.pth'):
        load(tmp_path / 'foreign.pth')
    with pytest.raises(CheckpointError, match=r'foreign\.pth'):
        load_checkpoint(nn.Linear(1, 1), str(tmp_path / 'foreign.pth'))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'nowhere\.pth'):
        load(tmp_path / 'nowhere.pth')


def test_unknown_class_is_refused_with_the_way_to_allow_it(tmp_path):
    torch.save(dict(state_dict={}, extra=ConfigDict(a=1)), tmp_path / 'c.pth')
    with pytest.raises(CheckpointError, match='add_safe_globals') as error:
        load(tmp_path / 'c.pth')
    assert 'mmengine.config.config.ConfigDict' in str(error.value)


def test_newest_good_skips_bad_files_with_a_reason(tmp_path):
    (tmp_path / 'bad.pth').write_bytes(b'')
    torch.save(dict(state_dict={}), tmp_path / 'weights.pth')
    good = dict(meta={}, state_dict={}, message_hub={}, optimizer={})
    torch.save(good, tmp_path / 'good.pth')
    files = [tmp_path / f'{name}.pth' for name in ('bad', 'weights', 'good')]
    found, problems = newest_good(files)
    assert found == files[2]
    assert 'bad.pth' in problems[0]
    assert 'weights.pth has no meta' in problems[1]
    assert newest_good(files[:1])[0] is None


def test_compare_lists_the_differences_as_a_table():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    file = {f'module.{k}': v for k, v in model.state_dict().items()}
    assert not compare(model, file)
    file['module.0.weight'] = torch.zeros(4, 3, 3, 3)
    del file['module.1.bias'], file['module.1.num_batches_tracked']
    file['head.weight'] = torch.zeros(1)
    result = compare(model, file)
    assert result.fitting == 4
    assert result.left_over == ['head.weight']
    assert [line.split() for line in result.table().splitlines()[1:]] == [
        ['1', 'missing', 'bias'],
        ['head', 'left', 'over:', 'weight', '-'],
        ['0.weight', '4×3×3×3', '8×3×3×3'],
    ]
    assert result.table(limit=1).endswith('and 2 more')
