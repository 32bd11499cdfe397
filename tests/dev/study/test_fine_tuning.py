"""The configs, commands and figures of docs/fine_tuning.md."""

import copy
import importlib
import json
from pathlib import Path

import pytest
from mmengine.config import Config

from mmdet_consistent.engine.architecture import Mismatch

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def tool():
    return importlib.import_module('tools.dev.study.fine_tuning')


def test_configs_of_the_page_differ_in_the_head_alone(tool, tmp_path):
    base = str(ROOT / 'configs/quickstart/retinanet_bccd.py')
    (tmp_path / 'my_retinanet.py').write_text(f'_base_ = {base!r}\n')
    for name, text in tool.config_files().items():
        (tmp_path / f'{name}.py').write_text(text)
    baseline, trained_on, consistent, faster, aligned = (
        Config.fromfile(tmp_path / f'{name}.py').to_dict() for name in tool.NAMES
    )
    additions = aligned['model']['bbox_head'].pop('additions')
    assert additions == [dict(type='AlignedFeatures')]
    assert aligned == faster
    assert faster['optim_wrapper'].pop('paramwise_cfg') == dict(
        custom_keys={'later_stages': dict(lr_mult=10)}
    )
    assert faster == consistent
    assert consistent['model']['bbox_head'].pop('type') == 'ConsistentRetinaHead'
    assert trained_on['model']['bbox_head'].pop('type') == 'RetinaHead'
    assert consistent == trained_on
    rates = [c['optim_wrapper']['optimizer']['lr'] for c in (trained_on, baseline)]
    assert rates[0] == pytest.approx(rates[1] / 10)

    # The commands name the checkpoints that these schedules leave.
    trainings, comparison = tool.commands()
    then_trained = list(tool.NAMES)[1:]
    assert [w[4] for w in trainings] == [f'{name}.py' for name in then_trained]
    first = baseline['train_cfg']['max_epochs']
    then = trained_on['train_cfg']['max_epochs']
    start = f'work_dirs/my_retinanet/epoch_{first}.pth'
    assert trained_on['load_from'] == start
    expected = ['my_retinanet.py', start]
    for name in then_trained:
        expected += [f'{name}.py', f'work_dirs/{name}/epoch_{then}.pth']
    assert comparison[4:] == expected


def detector(ap, seconds, missing=()):
    metrics = dict(AP=ap, AP50=2 * ap, AP75=ap / 2)
    return dict(metrics=metrics, seconds=seconds, missing=list(missing))


@pytest.fixture
def results():
    keys = ['head.later.weight', 'head.later.bias']
    seeds = {
        str(seed): dict(
            my_retinanet=detector(40.0 + seed, 90.0),
            my_retinanet_on=detector(41.0 + seed, 20.0),
            my_con_retinanet=detector(42.0 + 2 * seed, 21.0, keys),
            my_con_retinanet_10x=detector(43.0 + seed, 22.0, keys),
            my_aligned_retinanet=detector(44.0 + seed, 23.0, keys),
        )
        for seed in range(3)
    }
    return dict(command='the command', machine='A machine', seeds=seeds)


def test_text_of_shows_means_and_paired_differences(tool, results):
    text = tool.text_of(results)
    baseline, trained_on, consistent, faster, aligned = (
        [cell.strip() for cell in line.strip('|').split('|')]
        for line in text.splitlines()[2:7]
    )
    assert baseline[1:5] == ['41.0', '82.0', '20.5', '-1.0 ± 0.0']
    assert trained_on[1:5] == ['42.0', '84.0', '21.0', '–']
    # Differences 1, 2, 3: their t-interval at 95 % is 4.303 / sqrt(3).
    assert consistent[1:5] == ['44.0', '88.0', '22.0', '+2.0 ± 2.5']
    assert faster[1:5] == ['44.0', '88.0', '22.0', '+2.0 ± 0.0']
    assert aligned[1:5] == ['45.0', '90.0', '22.5', '+3.0 ± 0.0']
    assert 'took 21 s, training on 20 s' in text
    assert 'the median of the ratios is 1.05' in text
    assert 'the checkpoint lacks `head.later.weight`, `head.later.bias`.' in text
    assert 'the command' in text
    assert 'A machine' in text


def test_text_of_refuses_logs_that_differ(tool, results):
    other = copy.deepcopy(results)
    other['seeds']['1']['my_con_retinanet']['missing'] = ['head.cls.weight']
    with pytest.raises(SystemExit, match='the logs differ'):
        tool.text_of(other)


def test_training_facts_reads_times_and_missing_weights(tool, tmp_path):
    (tmp_path / 'run/vis_data').mkdir(parents=True)
    mismatch = Mismatch(missing=['head.a.weight', 'head.a.bias', 'head.b.c'])
    line = (
        '2026/11/25 10:00:00 - mmengine - WARNING - x.pth fits this model only in part'
    )
    log = tmp_path / 'run/run.log'
    log.write_text(f'x\n{line}; so:\n{mismatch.table()}\n2026/11/25 10:00:01 - more\n')
    times = ((2.0, 5), (9.0, 10), (3.0, 15))
    lines = [dict(loss=1.0, time=time, step=step) for time, step in times]
    text = '\n'.join(map(json.dumps, [*lines, {'coco/bbox_mAP': 0.1, 'step': 3}]))
    (tmp_path / 'run/vis_data/scalars.json').write_text(text)
    found = tool.training_facts(tmp_path)
    assert found['seconds'] == 45.0
    assert sorted(found['missing']) == ['head.a.bias', 'head.a.weight', 'head.b.c']
    mismatch.left_over.append('old.d')
    log.write_text(f'{line}; so:\n{mismatch.table()}\n2026/11/25 10:00:01 - more\n')
    with pytest.raises(SystemExit, match=r'more than missing weights: old +left over'):
        tool.training_facts(tmp_path)
