"""Names mistakes before training that mmdet reports late and cryptically."""

from collections.abc import Sequence
from typing import Any, Optional

from mmdet.models.detectors import RPN
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, Runner
from torch import nn

from ...datasets.classes import dataset_classes
from ...utils.errors import ConfigError
from ..architecture import compare, trained_detector, unwrapped
from ..checkpoint import CheckpointError
from ..class_names import dataset_names, other_names, trained_names

MAY_LACK = (
    "custom_hooks=[dict(type='ConfigCheckHook', may_be_missing=('name',))] with parts "
    'of the names that may be missing'
)


@HOOKS.register_module()
class ConfigCheckHook(Hook):
    """Checks classes and checkpoint against the model.

    * ``num_classes`` of the head must fit the classes of each data set. (In mmdet a
      label too large fails inside an operator, and too few classes train silently.)
    * The annotation file must know the class names; otherwise the data set would not
      have a single object.
    * The checkpoint should know the classes in the same order.
    * The checkpoint must be of the same architecture. mmengine loads what fits and
      logs the rest in one long line. Here it is a table; resuming and testing refuse
      it, and so does ``load_from`` if nothing of the model is in the file.
      The later stages' regression outputs and the parameters of additions may be
      missing, as a baseline's file has none.

    Args:
        may_be_missing: Parts of names of parameters that a checkpoint need not hold.
    """

    priority = 'HIGH'

    def __init__(
        self, may_be_missing: tuple[str, ...] = ('.later_stages.', '.additions.')
    ) -> None:
        self.may_be_missing = tuple(may_be_missing)

    def before_run(self, runner: Runner) -> None:
        """Check every data set that this run has built."""
        for name in ('train', 'val', 'test'):
            loop = getattr(runner, f'_{name}_loop')
            if isinstance(loop, BaseLoop):
                check_classes(
                    runner.model, loop.dataloader.dataset, f'{name}_dataloader'
                )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Warn of differences between checkpoint and model, or refuse them.

        Raises:
            CheckpointError: If the checkpoint can't be meant for this model and use.
        """
        self._check_names(runner, trained_names(checkpoint))
        model = unwrapped(runner.model)
        result = compare(model, checkpoint.get('state_dict', checkpoint))
        if not result:
            return
        path = runner._load_from
        table = result.table()
        needed = [
            name
            for name in result.missing
            if not any(part in name for part in self.may_be_missing)
        ]
        total = result.fitting + len(result.missing) + len(result.shapes)
        training = isinstance(runner._train_loop, BaseLoop)
        if not result.fitting:
            raise CheckpointError(
                f'{path} holds only 0 of the {total} parameters of this model: it is '
                f'of another architecture.\n{table}\nUse the config it was trained '
                "with; a backbone alone is loaded by the backbone's init_cfg="
                "dict(type='Pretrained', checkpoint=...)"
            )
        if training and not runner._resume:
            runner.logger.warning(
                f'{path} fits this model only in part ({result.fitting} of {total} '
                f'parameters); what differs keeps its initial values:\n{table}'
            )
        elif needed or result.shapes or (result.left_over and runner._resume):
            use = 'resumed from' if training else 'tested'
            raise CheckpointError(
                f'{path} does not fit this model and cannot be {use}:\n{table}\n'
                'Use the config it was trained with, or '
                + ('load_from without resume to fine-tune' if training else MAY_LACK)
            )
        else:
            runner.logger.warning(f'{path} fits this model except for:\n{table}')

    def _check_names(self, runner: Runner, trained: list[str]) -> None:
        """Warn of names that a checkpoint knows in another order, or does not know."""
        anew = isinstance(runner._train_loop, BaseLoop) and not runner._resume
        for name in ('train', 'val', 'test'):
            loop = getattr(runner, f'_{name}_loop', None)
            if isinstance(loop, BaseLoop):
                dataset = getattr(getattr(loop, 'dataloader', None), 'dataset', None)
                metainfo = getattr(dataset, 'metainfo', None)
                tested = dataset_names(metainfo)
                differ = other_names(trained, tested)
                # New classes are what fine-tuning is for; another order is a mistake.
                if differ and not (anew and sorted(trained) != sorted(tested)):
                    runner.logger.warning(f'{runner._load_from} {differ}')
                    return


def check_classes(model: nn.Module, dataset: Any, field: str) -> None:
    """Compare the classes of each joined data set with those of the detector's heads.

    Args:
        model: The detector, wrapped or not. One without classes of its own (an RPN, or
            one that reads their names) is not checked.
        dataset: The data set, wrapped or not; one without class names is not checked.
        field: The config field of its loader, for the message.

    Raises:
        ConfigError: If they differ. The message names both and the fields to change.
    """
    detector = trained_detector(model)
    if isinstance(detector, RPN) or hasattr(detector, 'language_model'):
        return
    classes = dataset_classes(dataset, f'{field}.dataset')
    place = 'model' if detector is unwrapped(model) else 'model.detector'
    roi_head = getattr(detector, 'roi_head', None)
    heads = {
        f'{place}.bbox_head': getattr(detector, 'bbox_head', None),
        f'{place}.roi_head.bbox_head': getattr(roi_head, 'bbox_head', None),
    }
    for name, head in heads.items():
        for stage in head if isinstance(head, nn.ModuleList) else [head]:
            _check_number(getattr(stage, 'num_classes', None), name, classes, field)


def _check_number(
    number: Optional[int], head: str, classes: Optional[Sequence[str]], field: str
) -> None:
    """Compare the number of a head's classes with those of the data set."""
    if classes is None or number is None:
        return
    if number != len(classes):
        shown = ', '.join(classes[:5]) + (', …' if len(classes) > 5 else '')
        raise ConfigError(
            f'{head}.num_classes={number}, but {field}.dataset has '
            f'{len(classes)} classes ({shown}): set num_classes={len(classes)}, or '
            f"{field}.dataset.metainfo=dict(classes=(...)) to the head's {number} names"
        )
