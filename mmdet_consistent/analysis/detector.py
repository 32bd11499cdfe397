"""Run a detector over a split and store what :mod:`collect` makes of it."""

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from . import collect
from .ground_truth import GroundTruth
from .recorder import NoAnchorsError, Recorder, find_head, rescore_by_iou
from .shards import ShardStore


def build_dataset(cfg: Config) -> Dataset:
    """The test split of a config."""
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    if cfg.get('test_dataloader') is None:
        raise ValueError(
            f'{cfg.filename}: test_dataloader is missing; it says which images are '
            'looked at'
        )
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools chatters
        return DATASETS.build(cfg.test_dataloader.dataset)


def build_model(cfg: Config, checkpoint: Path, device: str) -> nn.Module:
    """The model of a config with the weights of a checkpoint, for inference.

    Raises:
        ValueError: If the checkpoint doesn't hold all weights of the model.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    model = MODELS.build(cfg.model)
    if not torch.device(device).type.startswith('cuda'):
        model = revert_sync_batchnorm(model)
    # Silent, for the progress bar's sake: what doesn't fit is told below.
    loaded = load_checkpoint(
        model, str(checkpoint), map_location='cpu', strict=False, logger='silent'
    )
    weights = loaded.get('state_dict', loaded)
    shapes = {name.removeprefix('module.'): w.shape for name, w in weights.items()}
    wrong = [n for n, w in model.state_dict().items() if shapes.get(n) != w.shape]
    if wrong:
        what = 'another shape' if wrong[0] in shapes else 'nothing'
        raise ValueError(
            f'{checkpoint} does not fit {cfg.filename}: it has {what} for '
            f'{wrong[0]} (and {len(wrong) - 1} others); give the config that it was '
            'trained with'
        )
    return model.to(device).eval()


def fingerprint(cfg: Config, checkpoint: Path, **settings: Any) -> dict:
    """What a collection depends on, in plain JSON."""
    stat = Path(checkpoint).stat()
    return dict(
        model=cfg.get('model', {}).to_dict(),
        dataset=cfg.test_dataloader.dataset.to_dict(),
        checkpoint=str(checkpoint),
        checkpoint_bytes=stat.st_size,
        checkpoint_time=int(stat.st_mtime),
        **settings,
    )


def collect_detector(
    name: str,
    cfg: Config,
    checkpoint: Path,
    folder: Path,
    limit: Optional[int] = None,
    num_anchors: int = 1_000_000,
    device: str = 'cpu',
    fresh: bool = False,
    shard_images: int = 64,
) -> tuple[ShardStore, GroundTruth]:
    """Run a detector over its test split, or go on where it was stopped.

    Args:
        name: Shown in the progress bar.
        cfg: The model's config; its test split is what is looked at.
        checkpoint: The weights.
        folder: Where the shards go.
        limit: Look at the first so many images only.
        num_anchors: Rows of anchors to keep over all images.
        device: Where to run.
        fresh: Forget an earlier collection.
        shard_images: Images a shard.

    Returns:
        The store with all rows, and the ground truth.
    """
    dataset = build_dataset(cfg)
    truth = GroundTruth.from_dataset(dataset)
    total = min(len(dataset), limit or len(dataset))
    made_from = fingerprint(cfg, checkpoint, images=total, num_anchors=num_anchors)
    # Through JSON, so that tuples compare as what comes back from the file.
    made_from = json.loads(json.dumps(made_from, default=str))
    store = ShardStore(folder, made_from, fresh)
    done = len(store.image_ids())
    bar = tqdm(
        total=total, initial=done, desc=name, unit='image', file=sys.stderr, ncols=78
    )
    if done == total:
        bar.close()
        return store, truth
    model = build_model(cfg, checkpoint, device)
    try:
        head = find_head(model)
    except NoAnchorsError as error:
        head = None
        bar.write(f'{name}: {error}: only detections are analysed', file=sys.stderr)
    loader = DataLoader(
        Subset(dataset, range(done, total)),
        batch_size=cfg.test_dataloader.get('batch_size', 1),
        num_workers=cfg.test_dataloader.get('num_workers', 0),
        collate_fn=pseudo_collate,
    )
    waiting = 0
    with bar:
        for batch in loader:
            for image_id, tables in _batch_tables(
                model, head, batch, truth, max(num_anchors // total, 100)
            ):
                store.add(image_id, tables)
                waiting += 1
                bar.update()
            if waiting >= shard_images:
                store.flush()
                waiting = 0
        store.flush()
    return store, truth


@torch.no_grad()
def _batch_tables(
    model: nn.Module,
    head: Optional[nn.Module],
    batch: dict,
    truth: GroundTruth,
    anchors_an_image: int,
) -> list[tuple]:
    """(image id, tables) of each image of a batch."""
    outputs = []
    if head is None:
        samples = model.test_step(batch)
    else:
        with Recorder(head) as recorder:
            samples = model.test_step(batch)
        outputs = recorder.take()
    found = []
    for index, sample in enumerate(samples):
        image_id = truth.image_id(sample.img_id)
        tables = dict(
            detections=collect.detection_rows(image_id, sample.pred_instances)
        )
        if head is not None:
            objects = truth.of_image(image_id).countable()
            output = outputs[index]
            ious = collect.anchor_ious(output, objects)
            oracle = rescore_by_iou(
                head,
                output.candidates,
                torch.from_numpy(objects.boxes).to(output.scores),
                torch.from_numpy(objects.labels).to(output.scores.device),
            )
            tables['oracle'] = collect.detection_rows(image_id, oracle)
            tables['anchors'] = collect.anchor_rows(
                image_id, output, ious, anchors_an_image
            )
            tables['objects'] = collect.object_rows(
                image_id,
                output,
                objects,
                score_thr=float(head.test_cfg.get('score_thr', 0)),
            )
            tables['counts'] = dict(anchors=collect.anchor_counts(ious)[None])
        found.append((image_id, tables))
    return found


def read_results(path: Path, truth: GroundTruth) -> collect.Table:
    """Detections of a COCO result file, as rows of ``detections``.

    Raises:
        ValueError: If the file isn't a COCO result file for this ground truth.
    """
    try:
        results = json.loads(Path(path).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f'{path} is not a readable result file: {error}') from error
    needed = {'image_id', 'category_id', 'bbox', 'score'}
    if not isinstance(results, list) or not all(needed <= set(r) for r in results):
        raise ValueError(
            f'{path} is not a COCO result file: a list of objects with {sorted(needed)}'
        )
    unknown = {r['image_id'] for r in results} - set(truth.images)
    if unknown:
        raise ValueError(
            f'{path}: image_id {next(iter(unknown))!r} is not in the annotations'
        )
    results = [r for r in results if r['category_id'] in truth.label_of]
    boxes = np.array([r['bbox'] for r in results], dtype=np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return dict(
        image_id=np.array([r['image_id'] for r in results], dtype=np.int64),
        label=np.array([truth.label_of[r['category_id']] for r in results], np.int32),
        score=np.array([r['score'] for r in results], dtype=np.float32),
        **{name: boxes[:, i] for i, name in enumerate(collect.CORNERS)},
    )
