"""Building, outputs and inference of a consistent head."""

import inspect
from collections.abc import Sequence
from functools import partial
from itertools import zip_longest
from typing import Any, Optional, Union

import torch
from mmdet.models.dense_heads.anchor_head import AnchorHead
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import get_box_tensor
from mmdet.utils import InstanceList
from mmengine.model import PretrainedInit
from mmengine.registry import WEIGHT_INITIALIZERS
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ..task_modules import ChainedBBoxCoder, SecondPassAssigner, rule_of
from ..utils.configs import resolve
from ..utils.device import may_select_rows
from .addition import Addition
from .anchors import PriorAnchors
from .box_loss import IOU_LOSSES, BoxLoss
from .box_output import (
    StagedConv2d,
    joined_once,
    reset_later_outputs,
    split_outputs,
)
from .cls_loss import label_set_losses
from .first_stage import NoFirstStage, choose_first_stage
from .ground_truth_area import with_area
from .options import default_assigners, one_per_stage
from .stage import Stage, build_assigner, loss_of_later_stage
from .targets import StageTargets


class ConsistentBase(PriorAnchors):
    """Parts of :class:`ConsistentMixin` that are no part of the method.

    A detector's own class overrides what differs from :class:`AnchorHead`:
    :meth:`box_output_layers` always, the other extension points as needed.
    """

    #: Whether rows may be selected by value; ``None``: on a CPU only, since on a GPU
    #: the host would wait for their number.
    select_rows: Optional[bool] = None
    stages: list[Stage]
    additions: Any
    first_stage: Any = NoFirstStage()

    @property
    def first_stage_channels(self) -> int:
        """Channels per anchor of the base head's own box output."""
        return 4

    @classmethod
    def base_class(cls) -> Any:
        """Return mmdet's head class that this class extends."""
        kinds = (kind for kind in cls.__mro__ if issubclass(kind, AnchorHead))
        return next(kind for kind in kinds if not issubclass(kind, ConsistentBase))

    # ---------------------------------------------------------- extension points

    def box_output_layers(self) -> list[tuple[nn.Module, str]]:
        """Return parent module and attribute name of each box-output convolution."""
        raise NotImplementedError

    def can_fuse_first_stage(self) -> bool:
        """Return whether the base head's loss is the loss of the later stages.

        If so, one pass computes stage 0 with the others; otherwise the base head's own
        code computes it.
        """
        return False

    def stage_losses(self, index: int) -> tuple[Optional[nn.Module], nn.Module]:
        """Return the classification and box loss module of a stage."""
        if index == 0:
            return self.loss_cls, self.loss_bbox
        return loss_of_later_stage(self.loss_cls), loss_of_later_stage(self.loss_bbox)

    def label_losses(
        self, levels: list[Tensor], stages: list[Stage], targets: list[StageTargets]
    ) -> list[Tensor]:
        """Compute L_cls(c, labels of Aᵏ) / N of one output c under several label sets.

        Args:
            levels: c, levels of (N, A·C, H, W), any floating dtype.
            stages: Stages that supply the labels.
            targets: Targets of these stages.

        Returns:
            One scalar per stage.
        """
        losses = [stage.loss_cls for stage in stages]
        channels, select = self.cls_out_channels, self.select_rows
        return label_set_losses(losses, levels, channels, targets, select)

    def uses_decoded_boxes(self) -> bool:
        """Return whether the box loss compares boxes in pixels instead of deltas."""
        return self.reg_decoded_bbox

    def compares_deltas(self) -> bool:
        """Return whether the base head's own code hands deltas to any loss."""
        plain = type(self).loss_by_feat_single is AnchorHead.loss_by_feat_single
        return plain and not self.reg_decoded_bbox

    def has_plain_targets(self) -> bool:
        """Return whether the base head's loss uses ``AnchorHead``'s ``get_targets``."""
        base = self.base_class()
        called = base.loss_by_feat.__code__.co_names  # (by itself, or by super's)
        uses_targets = 'get_targets' in called or 'loss_by_feat' in called
        return uses_targets and base.get_targets is AnchorHead.get_targets

    def default_normalizer(self) -> str:
        """Return the default of ``cls_normalizer``: Eq. 1's where it is known."""
        shared = self.has_plain_targets() and not self.variant.has_separate_towers
        return 'first' if shared else 'stage'

    def base_syncs_normalizer(self) -> bool:
        """Return whether the base head averages its normaliser over the processes."""
        return False

    def first_stage_deltas(self, levels: list[Tensor]) -> list[Tensor]:
        """Return what the first stage's box coder decodes: levels of (N, A·4, H, W)."""
        return levels

    def build_later_towers(self) -> None:
        """Build the separate towers of a cascade's later stages."""
        raise ValueError(
            f"variant='{self.variant.type}': {type(self).__name__} has no such "
            "variant; use variant='consistent'"
        )

    # ------------------------------------------------------------------ building

    def build_stages(
        self,
        loss_weights: Sequence[float],
        stage_bbox_coders: Union[dict, Sequence[dict], None],
        stage_assigners: Union[dict, Sequence[dict], None],
    ) -> None:
        """Build the stages, and for training their assigners and losses."""
        count = self.reg_stages - 1
        configs = one_per_stage('stage_bbox_coders', stage_bbox_coders, count)
        own = [TASK_UTILS.build(config) for config in configs or []]
        coders = [self.bbox_coder, *(own or [self.bbox_coder] * count)]
        self.stages = []
        for weight, coder in zip_longest(loss_weights, coders):
            previous = self.stages[-1] if self.stages else None
            self.stages.append(Stage(len(self.stages), weight, coder, previous))
        self.num_stages = len(self.stages)
        if not self.train_cfg:
            return
        later = self.num_stages - 1
        configs = one_per_stage('stage_assigners', stage_assigners, later)
        self.stages[0].assigner = self.assigner
        for stage, config in zip(self.stages[1:], configs or default_assigners(later)):
            stage.assigner = build_assigner(config)
            if isinstance(stage.assigner, SecondPassAssigner):
                stage.assigner.inherit_ignore_rule(self.assigner)
        for stage in self.stages:
            stage.loss_cls, loss_bbox = self.stage_losses(stage.index)
            if isinstance(loss_bbox, IOU_LOSSES) and self.compares_deltas():
                raise ValueError(
                    f'loss_bbox: {type(loss_bbox).__name__} compares boxes, but '
                    f'{type(self).__name__} would give it deltas: set '
                    "reg_decoded_bbox=True, or loss_bbox=dict(type='L1Loss')"
                )
            if stage.bbox_coder is not None:
                decoded = self.uses_decoded_boxes()
                stage.box_loss = BoxLoss(loss_bbox, stage.bbox_coder, decoded)
        self._register_own_losses()
        self.first_stage = choose_first_stage(self)

    def _register_own_losses(self) -> None:
        """Register the losses that later stages do not share: they may have a state."""
        for name, modules in (
            ('loss_cls', [s.loss_cls for s in self.stages[1:]]),
            ('loss_bbox', [s.box_loss.module for s in self.stages[1:] if s.box_loss]),
        ):
            shared = (None, getattr(self, name, None))
            own = nn.ModuleList(m for m in modules if m not in shared)
            setattr(self, f'stage_{name}', own)

    def build_additions(self, additions: Sequence[dict]) -> None:
        """Build the additions and the box outputs, which hold their values."""
        self.additions = Addition.build_all(additions, self.variant)
        sizes = [addition.num_values for addition in self.additions]
        self.num_extra = sum(sizes)
        later = [4] * (self.reg_stages - 1)
        self.output_sizes = [self.first_stage_channels, *later, *sizes]
        coders = [stage.bbox_coder for stage in self.stages[: self.reg_stages]]
        is_changed = self.reg_stages > 1 or self.num_extra > 0
        if is_changed:
            # Not restored: mmdet's predict path, TTA and exporters find it there.
            self.bbox_coder = ChainedBBoxCoder(coders, self.num_extra)
        if self.variant.has_separate_towers:
            self.build_later_towers()
        elif is_changed:
            box = torch.tensor([[0.0, 0.0, 64.0, 64.0]])
            identity = [coder.encode(box, box)[0] for coder in coders[1:]]
            for parent, name in self.box_output_layers():
                conv = getattr(parent, name)
                extra, first = self.num_extra, self.first_stage_channels
                staged = StagedConv2d(conv, identity, extra, first)
                setattr(parent, name, staged)
        for addition in self.additions:
            addition.attach(self)

    def init_weights(self) -> None:
        """Initialise as the base head, and let later stages leave boxes unchanged.

        An ``init_cfg`` that names the box output means the first stage's. A second call
        changes nothing, and weights loaded by a ``Pretrained`` entry are kept.
        """
        configs = self.init_cfg if isinstance(self.init_cfg, list) else [self.init_cfg]
        loaded = any(
            config and resolve(WEIGHT_INITIALIZERS, config['type']) is PretrainedInit
            for config in configs
        )
        done = self.is_init
        super().init_weights()
        if not done and not loaded:
            reset_later_outputs(self)

    @property
    def stage_loss_weights(self) -> tuple[float, ...]:
        """Classification loss weight of each label stage: (1, α, …) of Eq. 1."""
        return tuple(s.weight for s in self.stages if s.weight is not None)

    # ------------------------------------------------------------------- targets

    def trained_truths(self, instances: InstanceList) -> InstanceList:
        """Return the ground truths to train on: those with an area.

        On a GPU the host would wait for their number. There, where a max-IoU rule
        matches all stages, it leaves out the others itself.
        """
        boxes = get_box_tensor(instances[0].bboxes)
        waits = may_select_rows(boxes, self.select_rows)
        waits |= not self.first_stage.is_fused
        waits |= any(rule_of(stage.assigner) is None for stage in self.stages)
        return with_area(instances) if waits else instances

    # ------------------------------------------------------------------- outputs

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the outputs of all levels as the base head."""
        with joined_once(self):
            return super().forward(*args, **kwargs)

    def split_scores(self, cls_scores: list[Tensor]) -> list[list[Tensor]]:
        """Split levels of logits by stage. A shared output makes a single stage."""
        return self.variant.split_scores(cls_scores, self.label_stages)

    def merge_scores(self, cls_scores: list[Tensor]) -> list[Tensor]:
        """Return the logits that score the boxes, levels of (N, A·C, H, W)."""
        stages = self.split_scores(cls_scores)
        return self.variant.merge_scores(stages, self.use_sigmoid_cls, self.num_classes)

    def split_preds(self, bbox_preds: list[Tensor]) -> list[list[Tensor]]:
        """Split levels of box outputs by stage: levels of (N, A·4, H, W) each."""
        if len(self.output_sizes) == 1:
            return [bbox_preds]
        counts = self.prior_generator.num_base_priors
        for level, (count, preds) in enumerate(zip(counts, bbox_preds)):
            if preds.shape[1] != count * sum(self.output_sizes):
                raise ValueError(
                    f'bbox_preds of level {level} has {preds.shape[1]} channels, but '
                    f"{type(self).__name__}'s box output has {count} · "
                    f'{sum(self.output_sizes)}: for each anchor, those of all '
                    'regression stages and additions'
                )
        parts = split_outputs(bbox_preds, self.output_sizes)[: self.reg_stages]
        return [[level.flatten(1, 2) for level in part] for part in parts]

    def addition_slice(self, addition: Addition) -> slice:
        """Return where an anchor's channels of one addition are."""
        part = self.reg_stages + list(self.additions).index(addition)
        start = sum(self.output_sizes[:part])
        return slice(start, start + self.output_sizes[part])

    def addition_values(
        self, addition: Addition, bbox_preds: list[Tensor]
    ) -> list[Tensor]:
        """Return one addition's values of each level: (N, A, its values, H, W)."""
        part = self.reg_stages + list(self.additions).index(addition)
        return split_outputs(bbox_preds, self.output_sizes)[part]

    # ----------------------------------------------------------------- inference

    def predict_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        *args: Any,
        **kwargs: Any,
    ) -> InstanceList:
        """Predict as the base head, with merged scores and chained boxes."""
        predict = super().predict_by_feat
        inputs = {}
        for addition in self.additions:
            inputs.update(addition.predict_inputs(self, bbox_preds))
        if inputs:  # they replace arguments, which may have come by position
            names = list(inspect.signature(predict).parameters)[2:]
            args, kwargs = (), {**dict(zip(names, args)), **kwargs, **inputs}
        return predict(self.merge_scores(cls_scores), bbox_preds, *args, **kwargs)

    def _bbox_post_process(self, *args: Any, **kwargs: Any) -> InstanceData:
        """Suppress boxes as the base head, with the additions' changes."""
        post_process = super()._bbox_post_process
        for addition in self.additions:
            post_process = partial(addition.post_process, post_process)
        return post_process(*args, **kwargs)
