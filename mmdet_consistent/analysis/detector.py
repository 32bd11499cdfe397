"""Run a detector over a split, and store the tables of :mod:`collect`."""

import contextlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional, Union

import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from ..engine.checkpoint import local_path
from ..engine.class_names import dataset_names, other_names, trained_names
from ..utils.errors import ConfigError
from . import collect
from .annotations import AnnotatedSet
from .columns import Table
from .recorder import NoAnchorsError, Recorder, find_head, rescore_by_iou
from .shards import ShardStore


def build_dataset(cfg: Config) -> Any:
    """Build the dataset of a config's test split."""
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    if cfg.get('test_dataloader') is None:
        raise ConfigError(
            f'{cfg.filename}: test_dataloader is missing; it names the images to use'
        )
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints a lot
        return DATASETS.build(cfg.test_dataloader.dataset)


def build_model(cfg: Config, checkpoint: Union[str, Path], device: str) -> Any:
    """Build the model of a config with the weights of a checkpoint, for inference.

    As in mmdet, ``dataset_meta['classes']`` has the class names; here there are none if
    the checkpoint has none.

    Raises:
        ConfigError: If the checkpoint lacks a weight of the model.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    model = MODELS.build(cfg.model)
    if torch.device(device).type != 'cuda':
        model = revert_sync_batchnorm(model)
    # Silent, for the sake of the progress bar: misfits are reported below.
    loaded = load_checkpoint(
        model, str(checkpoint), map_location='cpu', strict=False, logger='silent'
    )
    weights = loaded.get('state_dict', loaded)
    shapes = {name.removeprefix('module.'): w.shape for name, w in weights.items()}
    wrong = [
        name
        for name, weight in model.state_dict().items()
        # (Files from before torch 0.4.1 don't hold these counters.)
        if shapes.get(name) != weight.shape and not name.endswith('num_batches_tracked')
    ]
    if wrong:
        what = 'another shape' if wrong[0] in shapes else 'nothing'
        raise ConfigError(
            f'{checkpoint} does not fit {cfg.filename}: it has {what} for {wrong[0]} '
            f'(and {len(wrong) - 1} other weights); give the config that it was '
            'trained with'
        )
    model.dataset_meta = dict(classes=trained_names(loaded))
    return model.to(device).eval()


def collect_detector(
    name: str,
    cfg: Config,
    checkpoint: Union[str, Path],
    folder: Path,
    limit: Optional[int] = None,
    num_anchors: int = 1_000_000,
    device: str = 'cpu',
    fresh: bool = False,
    shard_images: int = 64,
) -> tuple[ShardStore, AnnotatedSet]:
    """Run a detector over its test split, or resume an interrupted run.

    Args:
        name: Name in the progress bar.
        cfg: Config of the model and of the test split.
        checkpoint: The weights: a file or an address.
        folder: Folder of the shards.
        limit: Number of images to use; default: all.
        num_anchors: Number of anchors to keep over all images.
        device: Device to run on.
        fresh: Discard an earlier collection.
        shard_images: Images per shard.

    Returns:
        The store with all rows, and the annotations.
    """
    dataset = build_dataset(cfg)
    truth = AnnotatedSet.from_dataset(dataset)
    total = min(len(dataset), limit or len(dataset))
    path = local_path(checkpoint)
    stat = path.stat() if path else None
    made_from: dict[str, Any] = dict(
        model=cfg.model.to_dict(),
        dataset=cfg.test_dataloader.dataset.to_dict(),
        checkpoint=str(checkpoint),
        checkpoint_bytes=stat and stat.st_size,
        checkpoint_time=stat and int(stat.st_mtime),
        images=total,
        num_anchors=num_anchors,
    )
    store = ShardStore(folder, made_from, fresh)
    done = len(store.image_ids())
    progress = dict(desc=name, unit='image', file=sys.stderr, ncols=78)
    with tqdm(total=total, initial=done, **progress) as bar:
        if done == total:
            return store, truth
        model = build_model(cfg, checkpoint, device)
        trained = model.dataset_meta['classes']
        differ = other_names(trained, dataset_names(dataset.metainfo))
        if differ:
            bar.write(f'{name}: {checkpoint} {differ}', sys.stderr)
        try:
            head = find_head(model)
        except NoAnchorsError as error:
            head = None
            bar.write(f'{name}: {error}; only detections are analysed', sys.stderr)
        loader = DataLoader(
            Subset(dataset, range(done, total)),
            batch_size=cfg.test_dataloader.get('batch_size', 1),
            num_workers=cfg.test_dataloader.get('num_workers', 0),
            collate_fn=pseudo_collate,
        )
        image_ids = iter(truth.order[done:])
        per_image = max(num_anchors // total, 100)
        for batch in loader:
            for image_id, tables in _run_batch(
                model, head, batch, image_ids, truth, per_image
            ):
                store.add(image_id, tables)
                bar.update()
            if len(store.pending) >= shard_images:
                store.flush()
        store.flush()
    return store, truth


@torch.no_grad()
def _run_batch(
    model: Any,
    head: Any,
    batch: dict,
    image_ids: Iterator[int],
    truth: AnnotatedSet,
    anchors_per_image: int,
) -> Iterator[tuple[int, dict[str, Table]]]:
    """Yield the id and the tables of each image of a batch."""
    with Recorder(head) if head else contextlib.nullcontext() as recorder:
        samples = model.test_step(batch)
    outputs = recorder.take() if recorder else []
    for index, sample in enumerate(samples):
        image_id = next(image_ids)
        tables = {'detections': collect.detection_rows(image_id, sample.pred_instances)}
        if recorder:
            output, objects = outputs[index], truth.of_image(image_id).countable()
            ious = collect.anchor_ious(output, objects)
            boxes, labels = map(torch.from_numpy, objects[:2])
            oracle = rescore_by_iou(head, output.candidates, boxes, labels)
            threshold = float(head.test_cfg.get('score_thr', 0))
            tables.update(
                oracle=collect.detection_rows(image_id, oracle),
                anchors=collect.anchor_rows(image_id, output, ious, anchors_per_image),
                objects=collect.object_rows(image_id, output, objects, threshold),
                counts=dict(anchors=collect.anchor_counts(ious)[None]),
            )
        yield image_id, tables
