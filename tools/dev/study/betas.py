"""tools/dev/study --betas: AP of trained rows at several betas, without training."""

import argparse
import json
from pathlib import Path

from mmdet_consistent.additions import LocalizationConfidence

from . import numbers as study
from . import report as study_report
from .runs import Job, evaluate, same_recipe, train, trained_runner, write_json
from .tables import ROWS

KIND = LocalizationConfidence.__name__


def has_beta(job: Job) -> bool:
    """Whether the row's head has localisation confidences."""
    row = ROWS[job.row] or {}
    return any(addition['type'] == KIND for addition in row.get('additions', ()))


def known(job: Job) -> dict:
    """What is measured of a run: beta, as a word, to its metrics."""
    path = _path(job)
    return json.loads(path.read_text()) if path.is_file() and same_recipe(job) else {}


def finished(job: Job, betas: list) -> dict:
    """The record of a run, if all betas are measured; else nothing."""
    measured = known(job)
    if not all(_word(beta) in measured for beta in betas):
        return {}
    measured = {_word(beta): measured[_word(beta)] for beta in betas}
    return dict(betas=measured, metrics=measured[_word(betas[0])])


def measure(job: Job, betas: list) -> dict:
    """Evaluate the run's weights at the betas that are missing; train it if need be."""
    train(job)
    measured = known(job)
    missing = [beta for beta in betas if _word(beta) not in measured]
    if missing:
        runner = trained_runner(job)
        [addition] = [
            addition
            for addition in runner.model.bbox_head.additions
            if isinstance(addition, LocalizationConfidence)
        ]
        for beta in missing:
            addition.beta = beta
            measured[_word(beta)] = evaluate(runner, job, f'beta_{job.split}')
            write_json(_path(job), measured)
    return finished(job, betas)


def write_page(
    results: dict, args: argparse.Namespace, command: str, note: str
) -> Path:
    """Write the page on one data set: for each row mean AP, and difference to beta 0.

    Args:
        results: Job to record.
        args: The study's: ``data``, ``split``, ``betas``, ``out``.
        command: The command that made it.
        note: A paragraph on what was trained.
    """
    parts = [
        f'# Localisation confidence: beta ({args.data}, {args.split} split)',
        f'Made by `{command}`.',
        note,
        'The weights are the same in all lines of a table, so a difference to '
        'β = 0, the classification score alone, is paired by the training: mean and '
        '95 % t-interval over the seeds.',
    ]
    for model, row in dict.fromkeys((job.model, job.row) for job in results):
        records = {
            job.seed: record['betas']
            for job, record in results.items()
            if (job.model, job.row) == (model, row)
        }
        runs = {
            f'β = {_word(beta)}': {
                seed: dict(metrics=record[_word(beta)], positives=[])
                for seed, record in records.items()
            }
            for beta in args.betas
        }
        rows = study.summarise(runs, f'β = {_word(0)}')
        parts += [
            f'## {model}, `{row}`',
            study_report.values_table(rows),
            study_report.differences_table(rows),
        ]
    args.out.mkdir(parents=True, exist_ok=True)
    suffix = '_val' if args.split == 'val' else ''
    path = args.out / f'beta_{args.data}{suffix}.md'
    path.write_text('\n\n'.join(parts) + '\n', encoding='utf-8')
    return path


def beta(word: str) -> float:
    """A number from 0 to 1 on the command line."""
    value = float(word)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'{word}: a beta is a number from 0 to 1')
    return value


def _word(beta: float) -> str:
    return f'{beta:g}'


def _path(job: Job) -> Path:
    return job.folder / f'beta_{job.split}.json'
