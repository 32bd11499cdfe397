"""The whole analysis in one call: collect, measure, write."""

import contextlib
import copy
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger

from ..engine import make_safe
from ..engine.checkpoint import is_there
from ..engine.launch import load_config
from ..utils.errors import UserError
from .annotations import AnnotatedSet
from .coco_eval import read_results, write_results
from .columns import select_images
from .detector import collect_detector
from .report import write_analysis
from .summary import Model, Summary

PathLike = Union[str, Path]


class AnalysisError(UserError, ValueError):
    """An analysis can't be made as asked for. The message says what to change."""


class Analysis(NamedTuple):
    """Paths and numbers that an analysis has written.

    Attributes:
        page: The page, ``report.html``.
        numbers: Single numbers (``'AP'``, ``'F1'``, …) by detector; AP and other shares
            in 0…1.
        figures: PNG file of each chart by its key, such as ``'ap'``; an SVG file lies
            beside it.
        tables: CSV file of each table by its name, such as ``'thresholds'``.
        summaries: The results of each detector, with the arrays behind the numbers.
    """

    page: Path
    numbers: dict[str, dict[str, float]]
    figures: dict[str, Path]
    tables: dict[str, Path]
    summaries: list[Summary]


def analyze(
    *pairs: Union[PathLike, Config],
    out: PathLike = 'work_dirs/analysis',
    results: Sequence[PathLike] = (),
    ann: Optional[PathLike] = None,
    names: Optional[Sequence[str]] = None,
    limit: Optional[int] = None,
    anchors: int = 1_000_000,
    cases: int = 4,
    device: Optional[str] = None,
    fresh: bool = False,
    cfg_options: Optional[dict] = None,
    command: str = 'mmdet_consistent.analyze(…)',
) -> Analysis:
    """Analyse the scores and boxes of detectors, and write one page about them.

    ``analyze('mine.py', 'mine.pth')`` runs a detector over the test split of its
    config. An interrupted run resumes with the same arguments. Calls
    :func:`~mmdet_consistent.engine.make_safe`.

    Args:
        *pairs: Config and checkpoint of each detector, one after the other. Configs are
            files or mmengine's ``Config``; checkpoints are files or addresses.
        out: Folder for the results.
        results: COCO result files of further detectors.
        ann: COCO annotation file, for ``results`` without a config.
        names: Name of each detector; default: names of the files.
        limit: Number of images to use; default: all.
        anchors: Number of anchors to sample over all images.
        cases: Number of worst cases per detector.
        device: Device to run on; default: ``cuda`` if available, else ``cpu``.
        fresh: Collect anew, even what is in ``out``.
        cfg_options: Overrides of config fields, ``key.of.field`` to value.
        command: Words at the end of the page that say what made it.

    Returns:
        The files that were written, and the numbers.

    Raises:
        AnalysisError: If an argument is invalid or a file is missing, or if the test
            splits differ.
        ValueError: If annotations or results can't be used.
    """
    sources = [*pairs[::2], *results]
    names = list(names or map(_stem, sources))
    _check_arguments(pairs, results, ann, names, limit)
    out = Path(out)
    make_safe()
    with _quiet():
        models: list[Model] = []
        truth = None
        for name, config, checkpoint in zip(names, pairs[::2], pairs[1::2]):
            folder = out / 'data' / re.sub(r'[^\w.-]+', '_', name)
            store, of_model = collect_detector(
                name,
                _load(config, cfg_options),
                checkpoint,
                folder,
                limit=limit,
                num_anchors=anchors,
                device=device or ('cuda' if torch.cuda.is_available() else 'cpu'),
                fresh=fresh,
            )
            model = Model.from_store(name, store)
            models.append(model)
            truth = truth or of_model
            same = truth.classes == of_model.classes
            if not same or model.image_ids != models[0].image_ids:
                raise AnalysisError(
                    f'{name}: its test split has other images or classes than that of '
                    f'{names[0]}; detectors are compared over the same images'
                )
            write_results(folder / 'detections.json', model.detections, truth)
        truth = truth or AnnotatedSet.from_file(str(ann))
        image_ids = models[0].image_ids if models else truth.order[:limit]
        for name, path in zip(names[len(models) :], results):
            found = select_images(read_results(Path(path), truth), image_ids)
            models.append(Model(name, image_ids, found))
        summaries = write_analysis(models, truth, out, command, cases)
    return Analysis(
        out / 'report.html',
        {summary.model.name: summary.scalars for summary in summaries},
        {path.stem: path for path in sorted(out.glob('figures/*.png'))},
        {path.stem: path for path in sorted(out.glob('tables/*.csv'))},
        summaries,
    )


def _stem(source: Union[PathLike, Config]) -> str:
    """Return the default name of a detector."""
    name = (source.filename or 'model') if isinstance(source, Config) else source
    return Path(name).stem


def _load(config: Union[PathLike, Config], cfg_options: Optional[dict]) -> Config:
    """Read a config, unless it is one, and override fields."""
    if not isinstance(config, Config):
        return load_config(str(config), cfg_options)
    config = copy.deepcopy(config)
    config.merge_from_dict(cfg_options or {})
    return config


def _check_arguments(
    pairs: Sequence,
    results: Sequence[PathLike],
    ann: Optional[PathLike],
    names: Sequence[str],
    limit: Optional[int],
) -> None:
    """Raise ``AnalysisError`` if the arguments of :func:`analyze` are invalid."""
    if len(pairs) % 2:
        raise AnalysisError(
            f'give a config and a checkpoint per detector, got {len(pairs)} path(s)'
        )
    if not pairs and not results:
        raise AnalysisError('give a config and a checkpoint, or results and ann')
    if results and not pairs and not ann:
        raise AnalysisError('results need ann, their COCO annotation file')
    for path in [*pairs, *results, *filter(None, [ann])]:
        if not isinstance(path, Config) and not is_there(path):
            raise AnalysisError(f'no such file: {path}')
    if limit is not None and limit < 1:
        raise AnalysisError(f'limit must be at least 1, got {limit}')
    needed = len(pairs) // 2 + len(results)
    if len(names) != needed:
        raise AnalysisError(f'names: {needed} needed, got {len(names)}')
    if len(set(names)) != len(names):
        raise AnalysisError(f'names must differ, got {list(names)}; give others')


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold messages of the libraries back, which would break the progress bar."""
    logger: Any = MMLogger.get_instance('mmengine', log_level='ERROR')
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(level)
