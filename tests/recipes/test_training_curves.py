"""One training logs to TensorBoard, W&B and MLflow, and each is read back."""

import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from tests.support.recipes import recipe_with
from tests.support.tiny_detector import ROOT, tiny_config
from tests.support.wandb_file import history

LOGGED = {
    'consistency/label_agreement',
    'consistency/num_pos',
    'consistency/num_pos_s1',
    'consistency/num_pos_s2',
    'consistency/rank_correlation',
    'loss_bbox_s1',
    'loss_cls',
    'num_pos_s1',
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Return the work folder of a training of two steps with the recipe's loggers."""
    for library in ('tensorboard', 'wandb', 'mlflow'):
        pytest.importorskip(library, reason='a logger of the recipe')
    folder = tmp_path_factory.mktemp('curves')
    recipe = recipe_with('WandbVisBackend').replace('interval=200', 'interval=2')
    (folder / 'recipe.py').write_text(recipe)
    cfg = tiny_config()
    cfg.merge_from_dict(Config.fromfile(folder / 'recipe.py').to_dict())
    cfg.work_dir = cfg.experiment_name = cfg.visualizer.name = str(folder / 'run')
    cfg.log_level = 'ERROR'
    cfg.default_hooks.update(checkpoint=None, logger=dict(interval=1))
    cfg.train_dataloader.batch_size = 2
    dataset = cfg.train_dataloader.dataset
    dataset.update(indices=4, data_root=str(ROOT / cfg.data_root))
    cfg.train_cfg.max_epochs = 1
    for split in ('val', 'test'):
        for part in ('cfg', 'dataloader', 'evaluator'):
            cfg[f'{split}_{part}'] = None
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv('MLFLOW_ALLOW_FILE_STORE', 'true')
        for name in ('CACHE', 'CONFIG', 'DATA'):
            patch.setenv(f'WANDB_{name}_DIR', str(folder / 'wandb'))
        patch.setenv('WANDB_CONSOLE', 'off')
        patch.setenv('WANDB_ERROR_REPORTING', 'false')
        patch.setenv('WANDB_SILENT', 'true')
        Runner.from_cfg(cfg).train()
    return folder


@pytest.mark.works_with(
    'TensorBoard', 'show training curves', 'recipes.md#training-curves'
)
def test_tensorboard_has_losses_and_consistency(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (events,) = trained.rglob('events.out.tfevents.*')
    stored = EventAccumulator(str(events)).Reload()
    assert set(stored.Tags()['scalars']) >= LOGGED
    (positives,) = stored.Scalars('consistency/num_pos')
    assert positives.step == 2
    assert positives.value > 0
    assert [loss.step for loss in stored.Scalars('loss_bbox_s1')] == [1, 2]


@pytest.mark.works_with(
    'Weights & Biases',
    'show training curves, offline too',
    'recipes.md#training-curves',
)
def test_wandb_offline_run_has_losses_and_consistency(trained):
    (path,) = trained.rglob('offline-run-*/*.wandb')
    rows = history(path)
    assert {name for row in rows for name in row} >= LOGGED
    (measured,) = (row for row in rows if 'consistency/num_pos' in row)
    assert measured['consistency/num_pos'] > 0
    assert 0 <= measured['consistency/label_agreement'] <= 1


@pytest.mark.works_with(
    'MLflow', 'show training curves, from a folder too', 'recipes.md#training-curves'
)
def test_mlflow_folder_has_losses_and_consistency(trained, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.setenv('MLFLOW_ALLOW_FILE_STORE', 'true')
    store = MlflowClient(f'file://{trained / "mlruns"}')
    (experiment,) = store.search_experiments()
    (run,) = store.search_runs([experiment.experiment_id])
    assert run.info.status == 'FINISHED'
    assert run.data.metrics.keys() >= LOGGED
    (positives,) = store.get_metric_history(run.info.run_id, 'consistency/num_pos')
    assert positives.step == 2
    assert positives.value > 0
