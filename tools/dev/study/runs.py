"""One run of the study: train, evaluate, measure the boxes; all of it resumable."""

import hashlib
import json
import os
import shutil
import statistics
import time
from pathlib import Path
from typing import NamedTuple, Optional

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.runner import Runner, find_latest_checkpoint, set_random_seed
from torch.utils.data import DataLoader

import mmdet_consistent.engine.safe  # noqa: F401  registers heads, loads safely
from mmdet_consistent.utils import atomic
from tools.dev import ROOT

from .boxes import collect_anchors, facts
from .hooks import EpochSeedHook, RecordHook
from .numbers import coco_aps
from .tables import PRETRAINING, ROWS

TRAINING_IMAGES = 80  # training images on which a run's anchors are measured
# By the first word of the model's name, as in retinanet_wide.
HEADS = {
    'retinanet': 'ConsistentRetinaHead',
    'ssd': 'ConsistentSSDHead',
    'atss': 'ConsistentATSSHead',
    'gfl': 'ConsistentGFLHead',
}
CONFIGS = ROOT / 'tools/dev/study/configs'


class Job(NamedTuple):
    """One training: a row of :data:`ROWS`, a seed, and the folder of all runs."""

    model: str
    data: str
    row: str
    seed: int
    split: str
    epochs: int
    work_dir: Path

    @property
    def name(self) -> str:
        """Name for people."""
        return f'{self.data} {self.model} {self.row} seed {self.seed}'

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return self.work_dir / f'{self.model}_{self.data}' / self.row / str(self.seed)


def base_config(model: str, data: str) -> Config:
    """Return the config of a model on a data set: its own file, or both bases."""
    path = CONFIGS / f'{model}_{data}.py'
    if path.is_file():
        return Config.fromfile(path)
    cfg = Config.fromfile(CONFIGS / f'_base_{data}.py')
    cfg.model = Config.fromfile(CONFIGS / f'_base_{model}.py').model
    cfg.model.bbox_head.num_classes = len(cfg.classes)
    return cfg


def job_config(job: Job) -> Config:
    """Return the config of a run."""
    cfg = base_config(job.model, job.data)
    epochs = job.epochs or cfg.max_epochs
    if job.row == PRETRAINING:
        epochs = cfg.pretraining_epochs
    elif ROWS[job.row] is not None:
        row = dict(ROWS[job.row])
        if 'custom_hooks' in row:
            cfg.custom_hooks = [*cfg.get('custom_hooks', []), *row.pop('custom_hooks')]
        head = cfg.model.bbox_head
        for name in row:  # replaces the config's value instead of merging with it
            head.pop(name, None)
        head.update(type=HEADS[job.model.split('_')[0]], **row)
    cfg.merge_from_dict(
        {
            'max_epochs': epochs,
            'train_cfg.max_epochs': epochs,
            'param_scheduler.1.end': epochs,
            'param_scheduler.1.T_max': epochs,
        }
    )
    return cfg


def initial_weights(job: Job) -> Path:
    """Return the weights from which every row of this seed starts.

    These are the pretrained baseline's; without pretraining, or for the pretraining
    itself, those of the freshly initialised baseline.
    """
    if job_config(job).pretraining_epochs and job.row != PRETRAINING:
        return weights_of(pretraining(job))
    cfg = job_config(job._replace(row='baseline'))
    digest = hashlib.sha1(repr(cfg.model).encode()).hexdigest()[:10]
    path = job.folder.parents[1] / 'initial' / f'{job.seed}_{digest}.pth'
    if not path.is_file():
        set_random_seed(job.seed)
        model = MODELS.build(cfg.model)
        model.init_weights()
        save_weights(model.state_dict(), path)
    return path


def save_weights(weights: dict, path: Path) -> None:
    """Write weights as a whole; several processes may write the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f'.{os.getpid()}')
    torch.save(weights, partial)
    os.replace(partial, path)


def pretraining(job: Job) -> Job:
    """Return the training from which all rows of this model, data and seed start."""
    return job._replace(row=PRETRAINING, split='', epochs=None)


def prerequisite(job: Job) -> Optional[Job]:
    """Return the run that must be done before this one, if any."""
    if job.row != PRETRAINING and job_config(job).pretraining_epochs:
        return pretraining(job)
    return None


def weights_of(job: Job) -> Path:
    """Return the file of a finished training's weights."""
    return job.folder / 'weights.pth'


def write_json(path: Path, content: dict) -> None:
    """Write a JSON file as a whole."""
    atomic.write(path, json.dumps(content, indent=1).encode())


def recipe(job: Job) -> str:
    """Return a fingerprint of all settings of a run and of its prerequisite."""
    text = json.dumps(job_config(job).to_dict(), sort_keys=True)
    before = prerequisite(job)
    if before:
        text += recipe(before)
    return hashlib.sha1(text.encode()).hexdigest()


def same_recipe(job: Job) -> bool:
    """Return whether the stored run was made with today's settings."""
    path = job.folder / 'recipe.json'
    return path.is_file() and json.loads(path.read_text()) == dict(recipe=recipe(job))


def finished(job: Job) -> Optional[dict]:
    """Return the record of a run if it is done."""
    path = job.folder / f'{job.split}.json'
    return json.loads(path.read_text()) if path.is_file() and same_recipe(job) else None


def train(job: Job) -> dict:
    """Train or resume, unless it is done; return positives and time."""
    record = job.folder / 'trained.json'
    if record.is_file() and same_recipe(job):
        return json.loads(record.read_text())
    if not same_recipe(job):
        shutil.rmtree(job.folder, ignore_errors=True)  # made with other settings
    job.folder.mkdir(parents=True, exist_ok=True)
    write_json(job.folder / 'recipe.json', dict(recipe=recipe(job)))
    cfg = quiet_config(job)
    cfg.test_dataloader = cfg.val_dataloader = None
    last = find_latest_checkpoint(cfg.work_dir) if Path(cfg.work_dir).is_dir() else None
    if last and Path(last).name == f'epoch_{cfg.train_cfg.max_epochs}.pth':
        # It was interrupted before its positives were saved, so they are unknown.
        shutil.rmtree(cfg.work_dir)
        last = None
    cfg.resume = last is not None
    cfg.load_from = last or str(initial_weights(job))
    runner = Runner.from_cfg(cfg)
    record_hook = RecordHook(job.folder / 'progress.txt')
    runner.register_hook(EpochSeedHook(job.seed))
    runner.register_hook(record_hook, priority='LOW')
    runner.train()
    save_weights(runner.model.state_dict(), weights_of(job))
    steps = len(runner.train_dataloader)
    batch = cfg.train_dataloader.batch_size
    trained = dict(
        positives=[
            statistics.mean(values[-steps:]) / batch
            for values in record_hook.num_pos.values()
        ],
        step_seconds=statistics.median(record_hook.step_seconds),
    )
    write_json(record, trained)
    shutil.rmtree(cfg.work_dir)  # the optimizer's state is no longer needed
    return trained


def run_job(job: Job) -> dict:
    """Train and evaluate what is not done yet; return the run's record."""
    known = finished(job)
    if known:
        return known
    trained = train(job)
    metrics = evaluate(trained_runner(job), job, job.split)
    result = dict(**job._replace(work_dir=None)._asdict(), **trained, metrics=metrics)
    write_json(job.folder / f'{job.split}.json', result)
    return result


def trained_runner(job: Job) -> Runner:
    """Return a runner with the run's weights that tests on the job's split."""
    cfg = quiet_config(job)
    cfg.load_from = str(weights_of(job))
    cfg.test_dataloader = job_config(job)[f'{job.split}_dataloader']
    cfg.train_dataloader = cfg.train_cfg = cfg.optim_wrapper = None
    cfg.param_scheduler = cfg.val_dataloader = None
    cfg.test_cfg = dict()
    cfg.test_evaluator = dict(
        type='CocoMetric',
        ann_file=str(annotations(job)),
        format_only=True,
        outfile_prefix=str(job.folder / job.split),
    )
    return Runner.from_cfg(cfg)


def annotations(job: Job) -> Path:
    """Return the annotation file of the job's split."""
    dataset = job_config(job)[f'{job.split}_dataloader'].dataset
    return Path(dataset.data_root, dataset.ann_file)


def evaluate(runner: Runner, job: Job, name: str) -> dict:
    """Return the AP of the runner's model on the job's split."""
    runner.test_evaluator.metrics[0].outfile_prefix = str(job.folder / name)
    runner.test()
    classes = runner.test_dataloader.dataset.metainfo['classes']
    return coco_aps(annotations(job), job.folder / f'{name}.bbox.json', classes)


def measure_boxes(job: Job) -> dict:
    """Measure where the run's anchors end up, and the AP of its first step's boxes."""
    path = job.folder / f'anchors_{job.split}.json'
    if path.is_file() and same_recipe(job):
        return json.loads(path.read_text())
    train(job)
    runner = trained_runner(job)
    final = evaluate(runner, job, job.split)
    anchors = collect_anchors(runner.model, runner.test_dataloader)
    seen = collect_anchors(runner.model, training_images(job))
    first = final
    coder = runner.model.bbox_head.bbox_coder
    if hasattr(coder, 'stages'):
        coder.stages = coder.stages[:1]
        first = evaluate(runner, job, f'first_{job.split}')
    result = dict(
        facts=facts(anchors),
        facts_train=facts(seen),
        first=first,
        final=final,
    )
    write_json(path, result)
    return result


def training_images(job: Job) -> DataLoader:
    """Return a loader of the first training images, prepared as in a test."""
    cfg = job_config(job)
    loader = cfg.train_dataloader
    loader.sampler.shuffle = loader.drop_last = False
    loader.dataset.update(pipeline=cfg.test_pipeline, indices=TRAINING_IMAGES)
    return Runner.build_dataloader(loader)


def quiet_config(job: Job) -> Config:
    """Return the run's config with seed, folder and as little output as possible."""
    cfg = job_config(job)
    cfg.work_dir = str(job.folder / 'run')
    cfg.log_level = 'ERROR'
    cfg.randomness = dict(seed=job.seed)
    cfg.experiment_name = job.name.replace(' ', '_') + str(time.time())
    cfg.default_hooks = dict(
        logger=None,
        checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=1),
    )
    return cfg
