import argparse
import importlib
import json
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def tool(monkeypatch):
    module = importlib.import_module('tools.dev.study.__main__')
    runs = importlib.import_module('tools.dev.study.runs')
    monkeypatch.chdir(ROOT)
    init_default_scope('mmdet')
    config = module.job_config

    def small(job):
        cfg = config(job)
        cfg.pretraining_epochs = module.pretrain
        if job.row == module.PRETRAINING:
            cfg.train_cfg.max_epochs = module.pretrain
        cfg.train_dataloader.dataset.indices = 8
        cfg.val_dataloader.dataset.indices = 2
        return cfg

    module.pretrain = 0
    monkeypatch.setattr(runs, 'TRAINING_IMAGES', 4)
    module.runs = runs
    for part in (module, runs):
        monkeypatch.setattr(part, 'job_config', small)
    return module


def job(tool, tmp_path, row='baseline', **kwargs):
    fields = dict(model='retinanet', data='bccd', seed=3, split='val', epochs=2)
    return tool.Job(row=row, work_dir=tmp_path, **{**fields, **kwargs})


def weights(folder):
    return torch.load(folder / 'weights.pth', weights_only=True)


def test_jobs_of_several_tables_are_run_once(tool, tmp_path):
    args = argparse.Namespace(
        tables=['table1', 'table2', 'table3', 'table5'],
        data='bccd',
        seeds=[0, 1],
        core_seeds=[0, 1, 2],
        rows=None,
        split='test',
        epochs=None,
        work_dir=tmp_path,
    )
    jobs = tool.collect_jobs(args)
    assert len(set(jobs)) == len(jobs)
    count = {}
    for one in jobs:
        key = one.model, one.row
        count[key] = count.get(key, 0) + 1
    assert count['retinanet', 'baseline'] == count['retinanet', 'consistent'] == 3
    assert count['ssd', 'baseline'] == count['ssd', 'consistent'] == 3
    others = ('cascade', 'gated_cascade', '0.5_0.5', '0.7_0.6', '2_1', '3_2')
    assert {row for _, row in count} == {'baseline', 'consistent', *others}
    assert all(count['retinanet', row] == 2 for row in others)
    assert [one.seed for one in jobs] == sorted(one.seed for one in jobs)


@pytest.mark.parametrize('name', ['table1', 'table2', 'table3', 'table5'])
def test_tables_know_the_papers_figures(tool, name):
    table = tool.TABLES[name]
    figures = tool.paper_figures(table)
    assert set(figures) == set(table.rows)
    assert all(20 < row['AP'] < 45 for row in figures.values())


@pytest.mark.parametrize(
    ('model', 'data'), [('retinanet', 'bccd'), ('ssd', 'occlusion')]
)
def test_rows_start_from_the_same_weights(tool, tmp_path, model, data):
    base = torch.load(
        tool.runs.initial_weights(job(tool, tmp_path, model=model, data=data)),
        weights_only=True,
    )
    for row in ('consistent', 'cascade', '3_2'):
        one = job(tool, tmp_path, row, model=model, data=data)
        assert (
            tool.runs.initial_weights(one).name
            == tool.runs.initial_weights(one._replace(row='baseline')).name
        )
        built = MODELS.build(tool.job_config(one).model)
        assert not built.load_state_dict(base, strict=False).unexpected_keys
    other = tool.runs.initial_weights(
        job(tool, tmp_path, model=model, data=data, seed=4)
    )
    other = torch.load(other, weights_only=True)
    assert not torch.equal(
        base['backbone.conv1.weight'], other['backbone.conv1.weight']
    )


def test_a_row_may_have_hooks_and_its_own_loss(tool, tmp_path):
    hooks = tool.job_config(job(tool, tmp_path, 'alpha_schedule')).custom_hooks
    assert [hook['type'] for hook in hooks] == ['StageLossWeightHook']
    assert 'custom_hooks' not in tool.job_config(job(tool, tmp_path, 'consistent'))
    for row in ('quality_focal', 'quality_baseline'):
        head = tool.job_config(job(tool, tmp_path, row)).model.bbox_head
        assert head.loss_cls == tool.ROWS[row]['loss_cls']  # not merged with focal's
        assert MODELS.build(head).loss_cls.beta == 2.0


@pytest.mark.slow
def test_rows_are_paired_and_an_interrupted_run_goes_on(tool, tmp_path, monkeypatch):
    seen = {}
    step = MODELS.get('RetinaNet').train_step

    def spy(self, data, optim_wrapper):
        images = [int(x.long().sum()) for x in data['inputs']]
        seen.setdefault(current, []).append(images)
        return step(self, data, optim_wrapper)

    monkeypatch.setattr(MODELS.get('RetinaNet'), 'train_step', spy)
    current = 'baseline'
    base = tool.run_job(job(tool, tmp_path / 'a'))
    current = 'consistent'
    whole = job(tool, tmp_path / 'a', 'consistent')
    record = tool.run_job(whole)
    # The same images in the same order, flipped alike.
    assert seen['baseline'] == seen['consistent']
    assert len({tuple(images) for images in seen['baseline']}) > 1
    assert len(base['positives']) == 1
    assert len(record['positives']) == 2
    assert base['positives'][0] == record['positives'][0] > 0
    assert set(record['metrics']) >= {'AP', 'AP50', 'AP90', 'AP:RBC'}

    # Done before: read, not trained.
    current = 'again'
    assert tool.run_job(whole) == record
    assert 'again' not in seen
    # Only the evaluation is missing: nothing is trained.
    (whole.folder / 'val.json').unlink()
    assert tool.run_job(whole)['metrics'] == record['metrics']
    assert 'again' not in seen

    # Interrupted in its second epoch.
    stopped = job(tool, tmp_path / 'b', 'consistent')

    def stop(self, runner):
        original(self, runner)
        if runner.epoch == 1:
            raise KeyboardInterrupt

    original = tool.runs.EpochSeedHook.before_train_epoch
    monkeypatch.setattr(tool.runs.EpochSeedHook, 'before_train_epoch', stop)
    current = 'first'
    with pytest.raises(KeyboardInterrupt):
        tool.run_job(stopped)
    monkeypatch.setattr(tool.runs.EpochSeedHook, 'before_train_epoch', original)
    current = 'second'
    resumed = tool.run_job(stopped)
    assert seen['first'] + seen['second'] == seen['consistent']
    assert resumed['metrics'] == record['metrics']
    for (name, one), two in zip(
        weights(whole.folder).items(), weights(stopped.folder).values()
    ):
        torch.testing.assert_close(one, two, rtol=0, atol=0, msg=name)

    # Another setting under the same name: trained anew, not mixed up.
    current = 'changed'
    changed = tool.run_job(stopped._replace(epochs=1))
    assert len(seen['changed']) == len(seen['first'])
    recipe = json.loads((stopped.folder / 'recipe.json').read_text())
    assert recipe != json.loads((whole.folder / 'recipe.json').read_text())
    assert changed['epochs'] == 1


@pytest.fixture
def order(tool, monkeypatch):
    """The rows that run_all works on, in their order, all in this process."""
    order = []

    class InThisProcess:
        def __init__(self, *args):
            pass

        def submit(self, work, job):
            order.append(job.row)
            future = Future()
            future.set_result(work(job))
            return future

        def shutdown(self, **kwargs):
            pass

    monkeypatch.setattr(tool, 'ProcessPoolExecutor', InThisProcess)
    return order


@pytest.mark.slow
def test_betas_are_measured_without_training(tool, tmp_path, order, monkeypatch):
    betas = tool.study_betas
    steps = []
    step = MODELS.get('RetinaNet').train_step

    def spy(self, data, optim_wrapper):
        steps.append(data)
        return step(self, data, optim_wrapper)

    monkeypatch.setattr(MODELS.get('RetinaNet'), 'train_step', spy)
    trained = job(tool, tmp_path, 'loc_confidence', epochs=1)
    results = tool.run_all([trained], processes=1)
    assert order == ['loc_confidence']
    assert tool.finished(trained)
    count = len(steps)
    assert count > 0

    work = partial(betas.measure, betas=[0.0, 0.5])
    assert not betas.finished(trained, [0.0, 0.5])
    measured = tool.run_all([trained], 1, work)[trained]
    assert set(measured['betas']) == {'0', '0.5'}
    assert measured['betas']['0.5'] == results[trained]['metrics']  # the default
    # One more: only that is evaluated; what is there is read.
    kept = trained.folder / 'beta_val.json'
    found = json.loads(kept.read_text())
    found['0']['AP'] = -1
    kept.write_text(json.dumps(found))
    measured = betas.measure(trained, [0.0, 0.3])
    assert measured['metrics']['AP'] == -1
    assert set(measured['betas']) == {'0', '0.3'}
    assert set(json.loads(kept.read_text())) == {'0', '0.3', '0.5'}
    assert len(steps) == count
    # The weights that it shares are of another training: it is out of date.
    other = dict(type='LocalizationConfidence', loss_weight=2.0)
    monkeypatch.setitem(tool.ROWS, 'loc_confidence', dict(additions=[other]))
    assert not tool.finished(trained)
    assert not betas.known(trained)


def test_page_on_betas(tool, tmp_path):
    rows = [job(tool, tmp_path, 'loc_confidence', seed=seed) for seed in (0, 1)]
    assert all(map(tool.study_betas.has_beta, rows))
    assert not any(
        tool.study_betas.has_beta(job(tool, tmp_path, row))
        for row in ('baseline', 'consistent', 'alpha_0.5')
    )
    results = {
        row: dict(
            betas={
                word: dict.fromkeys(tool.study.METRICS, 40 + 2 * float(word) + row.seed)
                for word in ('0', '0.5')
            }
        )
        for row in rows
    }
    args = argparse.Namespace(data='bccd', split='val', betas=[0.0, 0.5], out=tmp_path)
    path = tool.study_betas.write_page(results, args, 'a command', 'a note')
    assert path.name == 'beta_bccd_val.md'
    text = path.read_text()
    assert 'Made by `a command`' in text
    assert '## retinanet, `loc_confidence`' in text
    assert '| β = 0.5' in text
    assert '41.5' in text
    assert '+1.0 ± 0.0' in text
    with pytest.raises(argparse.ArgumentTypeError, match=r'1\.5: a beta is'):
        tool.study_betas.beta('1.5')


@pytest.mark.slow
def test_rows_go_on_from_one_pretraining(tool, tmp_path, order):
    tool.pretrain = 1
    jobs = [
        job(tool, tmp_path, row, epochs=1, seed=seed)
        for seed, row in ((0, 'baseline'), (0, 'consistent'), (1, 'baseline'))
    ]
    results = tool.run_all(jobs, processes=1)
    assert order == ['pretraining', 'baseline', 'consistent', 'pretraining', 'baseline']
    assert set(results) == set(jobs)
    start = tool.runs.initial_weights(jobs[0])
    assert start == tool.runs.initial_weights(jobs[1])
    assert start.parent.parent.name == 'pretraining'
    assert tool.runs.initial_weights(jobs[2]) != start
    assert not torch.equal(
        torch.load(start)['backbone.conv1.weight'],
        weights(jobs[0].folder)['backbone.conv1.weight'],
    )
    # Where the anchors end up, on the same weights.
    record = tool.explain(jobs[1])
    assert record['final'] == results[jobs[1]]['metrics']
    assert set(record['first']) == set(record['final'])
    assert record['facts']['first positives an object'] > 0
    # Another pretraining: what went on from it is out of date.
    assert tool.finished(jobs[0])
    tool.pretrain = 2
    assert not tool.finished(jobs[0])


def test_page_csv_and_plot_are_written(tool, tmp_path, monkeypatch):
    monkeypatch.setattr('sys.argv', ['tools/dev/study', 'table3', '--split', 'val'])
    metrics = dict.fromkeys(tool.study.METRICS, 40.0)
    results = {}
    for shift, row in enumerate(('baseline', '2_1', 'consistent')):
        for seed in (0, 1):
            found = {name: value + shift + seed for name, value in metrics.items()}
            results[job(tool, tmp_path, row, seed=seed)] = dict(
                metrics=found, positives=[100.0]
            )
    args = argparse.Namespace(data='bccd', split='val', out=tmp_path / 'out')
    path = tool.write_results('table3', results, args)
    assert path.name == 'table3_bccd_val.md'
    text = path.read_text()
    assert 'Made by `python -m tools.dev.study table3 --split val`' in text
    assert '| 2_2' in text
    assert '+2.0 ± 0.0' in text
    assert '33.7' in text
    assert path.with_suffix('.csv').is_file()
    assert path.with_suffix('.png').is_file()
