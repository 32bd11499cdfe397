"""One run of tools/dev/study: train, evaluate, look at the boxes; all resumable."""

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
from mmengine.hooks import Hook
from mmengine.runner import Runner, find_latest_checkpoint, set_random_seed
from torch.utils.data import DataLoader

import mmdet_consistent.engine.safe  # noqa: F401  (registers the heads, loads safely)
from mmdet_consistent.engine.hooks import ProgressHook
from mmdet_consistent.utils import atomic

from . import boxes as study_boxes
from . import numbers as study
from .tables import PRETRAINING, ROWS

TRAINING_IMAGES = 80  # of those that a run has seen, to look at its anchors on
ROOT = Path(__file__).resolve().parents[3]
# By the first word of the model's name, which may go on: retinanet_wide.
HEADS = {'retinanet': 'ConsistentRetinaHead', 'ssd': 'ConsistentSSDHead'}


class Job(NamedTuple):
    """One training: a row of :data:`ROWS`, a seed, and where it is kept."""

    model: str
    data: str
    row: str
    seed: int
    split: str
    epochs: int
    work_dir: Path

    @property
    def name(self) -> str:
        """What people read."""
        return f'{self.data} {self.model} {self.row} seed {self.seed}'

    @property
    def folder(self) -> Path:
        """Where the run is kept."""
        return self.work_dir / f'{self.model}_{self.data}' / self.row / str(self.seed)


class EpochSeedHook(Hook):
    """Starts every epoch's chance from the seed and the epoch's number.

    So flips are the same for every row, whatever chance its model used up while
    it was built, and a resumed run is the one that was interrupted.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed every source of chance."""
        set_random_seed(1000 * self.seed + runner.epoch)


def job_config(job: Job) -> Config:
    """The row's config."""
    cfg = Config.fromfile(ROOT / f'tools/dev/study/configs/{job.model}_{job.data}.py')
    epochs = job.epochs or cfg.max_epochs
    if job.row == PRETRAINING:
        epochs = cfg.pretraining_epochs
    elif ROWS[job.row] is not None:
        row = dict(ROWS[job.row])
        if 'custom_hooks' in row:
            cfg.custom_hooks = [*cfg.get('custom_hooks', []), *row.pop('custom_hooks')]
        head = cfg.model.bbox_head
        for name in row:  # not merged with what the config has there
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
    """Weights from which every row of this seed starts.

    The baseline after its pretraining; without pretraining, or for the pretraining
    itself: the baseline as it is initialised.
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
    """Write beside, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f'.{os.getpid()}')
    torch.save(weights, partial)
    os.replace(partial, path)


def pretraining(job: Job) -> Job:
    """The training that all rows of this model, data and seed go on from."""
    return job._replace(row=PRETRAINING, split='', epochs=None)


def goes_on_from(job: Job) -> Optional[Job]:
    """The run that has to be done before this one, if any."""
    if job.row != PRETRAINING and job_config(job).pretraining_epochs:
        return pretraining(job)
    return None


def weights_of(job: Job) -> Path:
    """Weights of a finished training."""
    return job.folder / 'weights.pth'


def write_json(path: Path, content: dict) -> None:
    """Write beside, then rename."""
    atomic.write(path, json.dumps(content, indent=1).encode())


def recipe(job: Job) -> str:
    """A fingerprint of all settings of a run, those of what was before it included."""
    text = json.dumps(job_config(job).to_dict(), sort_keys=True)
    before = goes_on_from(job)
    if before:
        text += recipe(before)
    return hashlib.sha1(text.encode()).hexdigest()


def same_recipe(job: Job) -> bool:
    """Whether what is kept of the run was made with today's settings."""
    path = job.folder / 'recipe.json'
    return path.is_file() and json.loads(path.read_text()) == dict(recipe=recipe(job))


def finished(job: Job) -> Optional[dict]:
    """The record of a run that is done."""
    path = job.folder / f'{job.split}.json'
    return json.loads(path.read_text()) if path.is_file() and same_recipe(job) else None


def train(job: Job) -> dict:
    """Train, or go on, unless it is done; return positives and time."""
    record = job.folder / 'trained.json'
    if record.is_file() and same_recipe(job):
        return json.loads(record.read_text())
    if not same_recipe(job):
        shutil.rmtree(job.folder, ignore_errors=True)  # of no use to this setting
    job.folder.mkdir(parents=True, exist_ok=True)
    write_json(job.folder / 'recipe.json', dict(recipe=recipe(job)))
    cfg = quiet_config(job)
    cfg.test_dataloader = cfg.val_dataloader = None
    last = find_latest_checkpoint(cfg.work_dir) if Path(cfg.work_dir).is_dir() else None
    if last and Path(last).name == f'epoch_{cfg.train_cfg.max_epochs}.pth':
        # It ended before its positives were noted: cheaper again than guessed.
        shutil.rmtree(cfg.work_dir)
        last = None
    cfg.resume = last is not None
    cfg.load_from = last or str(initial_weights(job))
    runner = Runner.from_cfg(cfg)
    with open(job.folder / 'progress.txt', 'a', buffering=1) as log:
        progress = ProgressHook(job.name, stream=log)
        runner.register_hook(EpochSeedHook(job.seed))
        runner.register_hook(progress, priority='LOW')
        runner.train()
    save_weights(runner.model.state_dict(), weights_of(job))
    steps = len(runner.train_dataloader)
    batch = cfg.train_dataloader.batch_size
    trained = dict(
        positives=[
            statistics.mean(values[-steps:]) / batch
            for values in progress.num_pos.values()
        ],
        step_seconds=statistics.median(progress.step_seconds),
    )
    write_json(record, trained)
    shutil.rmtree(cfg.work_dir)  # the optimiser's state is of no more use
    return trained


def run_job(job: Job) -> dict:
    """Train and evaluate, as far as it isn't done; return the run's record."""
    known = finished(job)
    if known:
        return known
    trained = train(job)
    metrics = evaluate(trained_runner(job), job, job.split)
    result = dict(**job._replace(work_dir=None)._asdict(), **trained, metrics=metrics)
    write_json(job.folder / f'{job.split}.json', result)
    return result


def trained_runner(job: Job) -> Runner:
    """A runner with the run's weights, ready to test on the job's split."""
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
    """Ground truth of the job's split."""
    return Path(job_config(job).data_root) / f'annotations/{job.split}.json'


def evaluate(runner: Runner, job: Job, name: str) -> dict:
    """AP of the runner's model on the job's split."""
    runner.test_evaluator.metrics[0].outfile_prefix = str(job.folder / name)
    runner.test()
    return study.coco_aps(annotations(job), job.folder / f'{name}.bbox.json')


def explain(job: Job) -> dict:
    """Where the run's anchors end up, and the AP of its first step's boxes."""
    path = job.folder / f'anchors_{job.split}.json'
    if path.is_file() and same_recipe(job):
        return json.loads(path.read_text())
    train(job)
    runner = trained_runner(job)
    final = evaluate(runner, job, job.split)
    anchors = study_boxes.collect_anchors(runner.model, runner.test_dataloader)
    seen = study_boxes.collect_anchors(runner.model, training_images(job))
    first = final
    coder = runner.model.bbox_head.bbox_coder
    if hasattr(coder, 'stages'):
        coder.stages = coder.stages[:1]
        first = evaluate(runner, job, f'first_{job.split}')
    result = dict(
        facts=study_boxes.facts(anchors),
        facts_train=study_boxes.facts(seen),
        first=first,
        final=final,
    )
    write_json(path, result)
    return result


def training_images(job: Job) -> DataLoader:
    """The first images that the run was trained on, as they are in a test."""
    cfg = job_config(job)
    loader = cfg.train_dataloader
    loader.sampler.shuffle = loader.drop_last = False
    loader.dataset.update(pipeline=cfg.test_pipeline, indices=TRAINING_IMAGES)
    return Runner.build_dataloader(loader)


def quiet_config(job: Job) -> Config:
    """The row's config with seed, folder and as little chatter as there can be."""
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
