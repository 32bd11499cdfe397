import argparse
import json
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmdet.registry import MODELS

from tools.dev.study import __main__ as study
from tools.dev.study import betas, pool, runs
from tools.dev.study.hooks import EpochSeedHook, RecordHook
from tools.dev.study.numbers import METRICS
from tools.dev.study.report import paper_figures
from tools.dev.study.runs import Job
from tools.dev.study.tables import PRETRAINING, ROWS, TABLES

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def settings(monkeypatch):
    """Settings of small runs: ``pretraining_epochs`` may be changed."""
    settings = SimpleNamespace(pretraining_epochs=0)
    config = runs.job_config

    def small(job):
        cfg = config(job)
        cfg.pretraining_epochs = settings.pretraining_epochs
        if job.row == PRETRAINING:
            cfg.train_cfg.max_epochs = settings.pretraining_epochs
        cfg.train_dataloader.dataset.indices = 8
        cfg.val_dataloader.dataset.indices = 2
        return cfg

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(runs, 'TRAINING_IMAGES', 4)
    monkeypatch.setattr(runs, 'job_config', small)
    return settings


def job(tmp_path, row='baseline', **kwargs):
    fields = dict(model='retinanet', data='bccd', seed=3, split='val', epochs=2)
    return Job(row=row, work_dir=tmp_path, **{**fields, **kwargs})


def weights(folder):
    return torch.load(folder / 'weights.pth', weights_only=True)


def test_collect_jobs_lists_rows_of_several_tables_once(tmp_path):
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
    jobs = study.collect_jobs(args)
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
def test_paper_figures_are_known_for_every_row(name):
    table = TABLES[name]
    figures = paper_figures(table)
    assert set(figures) == set(table.rows)
    assert all(20 < row['AP'] < 45 for row in figures.values())


@pytest.mark.parametrize(
    ('model', 'data'), [('retinanet', 'bccd'), ('ssd', 'occlusion')]
)
def test_rows_start_from_the_same_weights(tmp_path, model, data):
    base = torch.load(
        runs.initial_weights(job(tmp_path, model=model, data=data)),
        weights_only=True,
    )
    for row in ('consistent', 'cascade', '3_2'):
        one = job(tmp_path, row, model=model, data=data)
        assert (
            runs.initial_weights(one).name
            == runs.initial_weights(one._replace(row='baseline')).name
        )
        built = MODELS.build(runs.job_config(one).model)
        assert not built.load_state_dict(base, strict=False).unexpected_keys
    other = runs.initial_weights(job(tmp_path, model=model, data=data, seed=4))
    other = torch.load(other, weights_only=True)
    assert not torch.equal(
        base['backbone.conv1.weight'], other['backbone.conv1.weight']
    )


def test_row_may_have_hooks_and_its_own_loss(tmp_path):
    hooks = runs.job_config(job(tmp_path, 'alpha_schedule')).custom_hooks
    assert [hook['type'] for hook in hooks] == ['StageLossWeightHook']
    assert 'custom_hooks' not in runs.job_config(job(tmp_path, 'consistent'))
    for row in ('quality_focal', 'quality_baseline'):
        head = runs.job_config(job(tmp_path, row)).model.bbox_head
        assert head.loss_cls == ROWS[row]['loss_cls']  # not merged with focal's
        assert MODELS.build(head).loss_cls.beta == 2.0


@pytest.mark.slow
def test_rows_are_paired_and_an_interrupted_run_resumes(tmp_path, monkeypatch):
    seen = {}
    step = MODELS.get('RetinaNet').train_step

    def spy(self, data, optim_wrapper):
        images = [int(x.long().sum()) for x in data['inputs']]
        seen.setdefault(current, []).append(images)
        return step(self, data, optim_wrapper)

    monkeypatch.setattr(MODELS.get('RetinaNet'), 'train_step', spy)
    current = 'baseline'
    base = runs.run_job(job(tmp_path / 'a'))
    current = 'consistent'
    whole = job(tmp_path / 'a', 'consistent')
    record = runs.run_job(whole)
    # The same images in the same order, flipped alike.
    assert seen['baseline'] == seen['consistent']
    assert len({tuple(images) for images in seen['baseline']}) > 1
    assert len(base['positives']) == 1
    assert len(record['positives']) == 2
    assert base['positives'][0] == record['positives'][0] > 0
    assert set(record['metrics']) >= {'AP', 'AP50', 'AP90', 'AP:RBC'}

    # Done before: read, not trained.
    current = 'again'
    assert runs.run_job(whole) == record
    assert 'again' not in seen
    # Only the evaluation is missing: nothing is trained.
    (whole.folder / 'val.json').unlink()
    assert runs.run_job(whole)['metrics'] == record['metrics']
    assert 'again' not in seen

    # Interrupted in its second epoch.
    stopped = job(tmp_path / 'b', 'consistent')

    def stop(self, runner):
        original(self, runner)
        if runner.epoch == 1:
            raise KeyboardInterrupt

    original = EpochSeedHook.before_train_epoch
    monkeypatch.setattr(EpochSeedHook, 'before_train_epoch', stop)
    current = 'first'
    with pytest.raises(KeyboardInterrupt):
        runs.run_job(stopped)
    monkeypatch.setattr(EpochSeedHook, 'before_train_epoch', original)
    current = 'second'
    resumed = runs.run_job(stopped)
    assert seen['first'] + seen['second'] == seen['consistent']
    assert resumed['metrics'] == record['metrics']
    for (name, one), two in zip(
        weights(whole.folder).items(), weights(stopped.folder).values()
    ):
        torch.testing.assert_close(one, two, rtol=0, atol=0, msg=name)

    # Another setting under the same name: trained anew, not mixed up.
    current = 'changed'
    changed = runs.run_job(stopped._replace(epochs=1))
    assert len(seen['changed']) == len(seen['first'])
    recipe = json.loads((stopped.folder / 'recipe.json').read_text())
    assert recipe != json.loads((whole.folder / 'recipe.json').read_text())
    assert changed['epochs'] == 1


@pytest.fixture
def order(monkeypatch):
    """The rows in the order in which run_all starts them, all in this process."""
    order = []

    class InThisProcess:
        def __init__(self, *args):
            pass

        def submit(self, work, job):
            order.append(job.row)
            future = Future()
            try:
                future.set_result(work(job))
            except RuntimeError as error:
                future.set_exception(error)
            return future

        def shutdown(self, **kwargs):
            pass

    monkeypatch.setattr(pool, 'ProcessPoolExecutor', InThisProcess)
    return order


@pytest.mark.slow
def test_betas_are_measured_without_further_training(tmp_path, order, monkeypatch):
    steps = []
    step = MODELS.get('RetinaNet').train_step

    def spy(self, data, optim_wrapper):
        steps.append(data)
        return step(self, data, optim_wrapper)

    monkeypatch.setattr(MODELS.get('RetinaNet'), 'train_step', spy)
    trained = job(tmp_path, 'loc_confidence', epochs=1)
    results = pool.run_all([trained], processes=1)
    assert order == ['loc_confidence']
    assert runs.finished(trained)
    count = len(steps)
    assert count > 0

    work = partial(betas.measure, betas=[0.0, 0.5])
    assert not betas.finished(trained, [0.0, 0.5])
    measured = pool.run_all([trained], 1, work)[trained]
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
    monkeypatch.setitem(ROWS, 'loc_confidence', dict(additions=[other]))
    assert not runs.finished(trained)
    assert not betas.known(trained)


def test_write_page_shows_betas(tmp_path):
    rows = [job(tmp_path, 'loc_confidence', seed=seed) for seed in (0, 1)]
    assert all(map(betas.has_beta, rows))
    assert not any(
        betas.has_beta(job(tmp_path, row))
        for row in ('baseline', 'consistent', 'alpha_0.5')
    )
    results = {
        row: dict(
            betas={
                word: dict.fromkeys(METRICS, 40 + 2 * float(word) + row.seed)
                for word in ('0', '0.5')
            }
        )
        for row in rows
    }
    args = argparse.Namespace(data='bccd', split='val', betas=[0.0, 0.5], out=tmp_path)
    path = betas.write_page(results, args, 'a command')
    assert path.name == 'beta_bccd_val.md'
    text = path.read_text()
    assert 'Generated by `a command`' in text
    assert '## retinanet, `loc_confidence`' in text
    assert '| β = 0.5' in text
    assert '41.5' in text
    assert '+1.0 ± 0.0' in text
    with pytest.raises(argparse.ArgumentTypeError, match=r'1\.5: a beta is'):
        betas.beta('1.5')


@pytest.mark.slow
def test_rows_start_from_one_pretraining(settings, tmp_path, order):
    settings.pretraining_epochs = 1
    jobs = [
        job(tmp_path, row, epochs=1, seed=seed)
        for seed, row in ((0, 'baseline'), (0, 'consistent'), (1, 'baseline'))
    ]
    results = pool.run_all(jobs, processes=1)
    assert order == ['pretraining', 'baseline', 'consistent', 'pretraining', 'baseline']
    assert set(results) == set(jobs)
    start = runs.initial_weights(jobs[0])
    assert start == runs.initial_weights(jobs[1])
    assert start.parent.parent.name == 'pretraining'
    assert runs.initial_weights(jobs[2]) != start
    assert not torch.equal(
        torch.load(start)['backbone.conv1.weight'],
        weights(jobs[0].folder)['backbone.conv1.weight'],
    )
    # Where the anchors end up, on the same weights.
    record = runs.measure_boxes(jobs[1])
    assert record['final'] == results[jobs[1]]['metrics']
    assert set(record['first']) == set(record['final'])
    assert record['facts']['first positives per object'] > 0
    # Another pretraining: what went on from it is out of date.
    assert runs.finished(jobs[0])
    settings.pretraining_epochs = 2
    assert not runs.finished(jobs[0])


def test_write_table_writes_page_csv_and_plot(tmp_path, monkeypatch):
    monkeypatch.setattr('sys.argv', ['tools/dev/study', 'table3', '--split', 'val'])
    metrics = dict.fromkeys(METRICS, 40.0)
    results = {}
    for shift, row in enumerate(('baseline', '2_1', 'consistent')):
        for seed in (0, 1):
            found = {name: value + shift + seed for name, value in metrics.items()}
            results[job(tmp_path, row, seed=seed)] = dict(
                metrics=found, positives=[100.0]
            )
    options = dict(data='bccd', split='val', epochs=None, out=tmp_path / 'out')
    args = argparse.Namespace(**options)
    path = study.write_table('table3', results, args)
    assert path.name == 'table3_bccd_val.md'
    text = path.read_text()
    assert 'Generated by `python -m tools.dev.study table3 --split val`' in text
    assert '| 2_2' in text
    assert '+2.0 ± 0.0' in text
    assert '33.7' in text
    assert path.with_suffix('.csv').is_file()
    assert path.with_suffix('.png').is_file()

    # The page can be made anew from the CSV file alone.
    text = path.read_text()
    path.unlink()
    csv = str(path.with_suffix('.csv'))
    monkeypatch.setattr('sys.argv', ['study', '--from-csv', csv])
    study.main()
    assert path.read_text() == text


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [([], 'name tables'), (['table9'], 'there is no table table9')],
)
def test_unknown_tables_are_refused(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr('sys.argv', ['study', *arguments])
    with pytest.raises(SystemExit, match='2'):
        study.parse_args()
    assert message in capsys.readouterr().err


def test_rows_state_the_normaliser_of_the_committed_results(tmp_path):
    for name, row in ROWS.items():
        if name == 'baseline':
            assert row is None
        elif name.startswith('default'):  # on photos, a head's own
            assert name == 'default_stage' or 'cls_normalizer' not in row
        else:
            expected = 'first' if name == 'first_normalizer' else 'stage'
            assert row['cls_normalizer'] == expected
    for name in ('consistent', 'cascade', 'quality_baseline', 'union'):
        head = MODELS.build(runs.job_config(job(tmp_path, name)).model).bbox_head
        assert head.cls_normalizer == 'stage'


def test_run_all_reports_rows_whose_pretraining_failed(
    settings, tmp_path, order, monkeypatch, capsys
):
    settings.pretraining_epochs = 1

    def fail(job):
        raise RuntimeError('no disk')

    monkeypatch.setattr(pool, 'train', fail)
    with pytest.raises(SystemExit) as error:
        pool.run_all([job(tmp_path, row) for row in ('baseline', 'consistent')], 1)
    assert order == ['pretraining']
    message = str(error.value)
    assert message.startswith('3 of 3 runs failed')
    assert 'consistent seed 3: bccd retinanet pretraining seed 3 failed' in message
    assert 'FAILED bccd retinanet pretraining seed 3: RuntimeError: no disk' in (
        capsys.readouterr().out
    )


def test_record_hook_counts_positives_of_mmdets_own_head(tmp_path):
    sampled = [SimpleNamespace(pos_inds=[1, 2]), SimpleNamespace(pos_inds=[3])]
    head = SimpleNamespace(_raw_positive_infos={'sampling_results': sampled})
    model = SimpleNamespace(bbox_head=head)
    runner = SimpleNamespace(model=model, epoch=0, max_epochs=2)
    hook = RecordHook(tmp_path / 'progress.txt')
    hook.before_train_iter(runner, 0)
    hook.after_train_iter(runner, 0, None, {'loss': 1.0})
    assert hook.num_pos == {'num_pos': [3.0]}
    hook.after_train_iter(runner, 1, None, {'num_pos': 4, 'num_pos_s1': 9, 'loss': 1})
    assert hook.num_pos == {'num_pos': [3.0, 4.0], 'num_pos_s1': [9.0]}
    assert len(hook.step_seconds) == 2
    hook.after_train_epoch(runner)
    assert (tmp_path / 'progress.txt').read_text() == 'epoch 1/2\n'
