"""Consistent optimization, from top to bottom.

A single-shot detector labels an anchor by where it starts, but its score is
used for where the box ends up. Here the one classification output ``c`` meets
the labels of the prior anchors A⁰ *and* those of the refined anchors
A¹ = decode(A⁰, t⁰), and a further regression output t¹ starts from A¹:

    L_cls = Σ_k w_k · L_cls(c, labels of Aᵏ) / N_k            (Eq. 1)
    L_reg = Σ_k L_reg(tᵏ, targets of Aᵏ) / N_k                 (Eq. 2)

Aᵏ is detached: no gradient flows through a decode. Inference chains the decodes
and leaves scores alone. Stage 0 is the base head: computed together with the
later stages where its loss is a plain sum over anchors, else by the base head.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Optional, Union

import torch
from mmdet.models.task_modules.samplers import PseudoSampler
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import get_box_tensor
from mmdet.utils import InstanceList, OptInstanceList, reduce_mean
from mmengine.dist import get_world_size
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ..losses.layout import flatten_levels
from ..task_modules import ChainedBBoxCoder, SecondPassAssigner, rule_of
from ..utils.device import is_on_cpu
from .addition import Addition, TrainingBatch
from .anchors import RememberedAnchors
from .box_output import LaterStage, replace_box_output
from .cls_loss import label_set_losses, masked_sum, sums_over_anchors
from .options import StageOptions, broadcast, default_assigners
from .staged_outputs import StagedOutputs
from .targets import GroundTruth, StageTargets


class ConsistentMixin(StagedOutputs, RememberedAnchors):
    """Adds later stages to an mmdet :class:`AnchorHead`.

    Use as ``class ConsistentXHead(ConsistentMixin, XHead)``; see
    :class:`ConsistentRetinaHead` for what such a class says about its base.

    Args:
        label_stages: Label sets that the classification output meets, the
            prior anchors' included (Table 3's #cls). Default: 2.
        reg_stages: Regression outputs, the base head's included (#reg).
            Default: 2.
        stage_loss_weights: One weight a label set, (1, α) of Eq. 1. Default:
            all 1. (0, 1) trains on the refined labels alone.
        stage_assigners: Assigner of the stages 1, 2, …: one config for all, or
            a list. Default: :class:`SecondPassAssigner` at 0.6/0.5, then
            0.7/0.6. Any assigner of mmdet's works; other than max-IoU ones
            image by image.
        stage_bbox_coders: Box coder of the regression stages 1, 2, …: one
            config for all, or a list. Default: the base head's.
        cls_normalizer: ``'stage'``: each label set is divided by its own
            number of positives; ``'first'``: all by the first stage's (the
            paper's single N_cls).
        variant: Figure 4's: ``'consistent'`` (d, the default), ``'cascade'`` (b),
            ``'gated_cascade'`` (c), ``'baseline'`` (a); or a dict with that
            ``type`` and the options of :class:`Variant`.
        additions: What goes beyond the paper: configs of :class:`Addition`.

    Raises:
        ValueError: If an option is impossible; says which, and the way out.
    """

    def __init__(
        self,
        *args,
        label_stages: Optional[int] = None,
        reg_stages: Optional[int] = None,
        stage_loss_weights: Optional[Sequence[float]] = None,
        stage_assigners: Union[dict, Sequence[dict], None] = None,
        stage_bbox_coders: Union[dict, Sequence[dict], None] = None,
        cls_normalizer: str = 'stage',
        variant: Union[str, dict] = 'consistent',
        additions: Sequence[dict] = (),
        **kwargs,
    ) -> None:
        options = StageOptions.check(
            label_stages, reg_stages, stage_loss_weights, cls_normalizer, variant
        )
        super().__init__(*args, **kwargs)
        self.label_stages = options.label_stages
        self.reg_stages = options.reg_stages
        self.num_stages = max(self.label_stages, self.reg_stages)
        self.stage_loss_weights = options.loss_weights
        self.cls_normalizer = cls_normalizer
        self.variant = options.variant
        self._base_positives: dict = {}
        self._base_avg_factor = None

        later = self.num_stages - 1
        if self.train_cfg:
            configs = broadcast('stage_assigners', stage_assigners, later)
            configs = configs or default_assigners(later)
            self.stage_assigners = [TASK_UTILS.build(config) for config in configs]
            for assigner in self.stage_assigners:
                if isinstance(assigner, SecondPassAssigner):
                    assigner.inherit_ignore_rule(self.assigner)
            self._build_stage_losses(later)

        configs = broadcast('stage_bbox_coders', stage_bbox_coders, self.reg_stages - 1)
        coders = [TASK_UTILS.build(config) for config in configs or []]
        coders = coders or [self.bbox_coder] * (self.reg_stages - 1)
        self.stage_coders = [self.bbox_coder, *coders]
        self.additions = Addition.build_all(additions, self.variant)
        self.extra_values = sum(addition.values for addition in self.additions)
        if self.reg_stages > 1 or self.extra_values:
            # For good: mmdet's predict path, TTA and exporters find it here.
            self.bbox_coder = ChainedBBoxCoder(self.stage_coders, self.extra_values)
        if self.variant.own_towers:
            self._build_later_towers()
        elif self.reg_stages > 1 or self.extra_values:
            self._replace_box_outputs()
        for addition in self.additions:
            addition.attach(self)

    # ------------------------------------- what a detector's own class says

    def _box_outputs(self) -> list[tuple[nn.Module, str]]:
        """Parent and name of each convolution that gives deltas."""
        raise NotImplementedError

    def _build_later_towers(self) -> None:
        """Make the layers that a cascade's later stages have of their own."""
        raise ValueError(
            f"variant='{self.variant.type}': {type(self).__name__} has no such "
            "variant; use variant='consistent'"
        )

    def _base_is_plain(self) -> bool:
        """Whether the base head's loss is the one that the later stages have."""
        return False

    # ------------------------------------------------------------ building

    def _replace_box_outputs(self) -> None:
        """Give every box output the later stages' deltas, and the additions' values."""
        box = torch.tensor([[0.0, 0.0, 64.0, 64.0]])
        identity = [coder.encode(box, box)[0] for coder in self.stage_coders[1:]]
        for parent, name in self._box_outputs():
            replace_box_output(
                parent, name, identity, self.extra_values, self.first_values
            )

    def init_weights(self) -> None:
        """The base head's; a fresh later stage leaves boxes where they are.

        A config's ``init_cfg`` that names the box output means the first stage's.
        """
        super().init_weights()
        if isinstance(self.init_cfg, dict) and self.init_cfg['type'] == 'Pretrained':
            return
        for module in self.modules():
            if isinstance(module, LaterStage):
                module.reset()

    def _build_stage_losses(self, later: int) -> None:
        """Copy the base losses: a loss with a memory (GHM) keeps one a stage."""
        for name in ('loss_cls', 'loss_bbox'):
            copies = [copy.deepcopy(getattr(self, name)) for _ in range(later)]
            setattr(self, f'stage_{name}', nn.ModuleList(copies))

    # ---------------------------------------------------------------- loss

    def loss_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        batch_gt_instances: InstanceList,
        batch_img_metas: list[dict],
        batch_gt_instances_ignore: OptInstanceList = None,
        other_outputs: Sequence[list[Tensor]] = (),
    ) -> dict:
        """Compute the losses of all stages (Eq. 1 and 2).

        Args:
            cls_scores: Logits of each level, (N, A·C, H, W); of a cascade,
                (N, K·A·C, H, W) for K label stages.
            bbox_preds: Deltas of each level, (N, A·S·4, H, W); with additions,
                their values follow an anchor's deltas.
            batch_gt_instances: ``bboxes`` (G, 4), xyxy in pixels, and
                ``labels`` (G,) of each image.
            batch_img_metas: ``img_shape`` and ``pad_shape`` of each image.
            batch_gt_instances_ignore: ``bboxes`` of the ignore regions.
            other_outputs: What else the base head's ``forward`` gives, for its loss.

        Returns:
            ``loss_cls`` and ``loss_bbox``, the base head's,
            ``loss_cls_s1``, ``loss_bbox_s1``, … for the later stages, and
            ``num_pos``, ``num_pos_s1``, … (not optimised).
        """
        stage_scores = self.split_scores(cls_scores)
        stage_preds = self.split_preds(bbox_preds)
        losses: dict = {}
        trained = list(range(self.num_stages))  # the stages computed here
        if self.first_rule() is None:
            losses = self._base_loss(
                stage_scores[0],
                stage_preds[0],
                *other_outputs,
                batch_gt_instances,
                batch_img_metas,
                batch_gt_instances_ignore,
            )
            trained = trained[1:]
        if not trained:
            return losses

        gts = GroundTruth.pad(batch_gt_instances, batch_gt_instances_ignore)
        stage_preds[0] = self._first_deltas(stage_preds[0])
        deltas = [flatten_levels(levels, 4) for levels in stage_preds]
        boxes, usable = self.prior_anchors(cls_scores, batch_img_metas)
        targets: dict[int, StageTargets] = {}
        for stage in range(self.num_stages):
            if stage > 0:
                boxes, usable = self.refine(stage, boxes, usable, deltas[stage - 1])
            if stage in trained:
                targets[stage] = self._stage_targets(stage, boxes, usable, gts)
        batch = TrainingBatch(cls_scores, bbox_preds, deltas, boxes, usable, gts)
        for addition in self.additions:
            targets = addition.adjust_targets(self, batch, targets)
        self._share_normalisers(targets)

        losses.update(self._cls_losses(stage_scores, targets))
        for stage, target in targets.items():
            losses[_name('num_pos', stage)] = target.positive.sum().float()
            if stage < self.reg_stages:
                losses[_name('loss_bbox', stage)] = self._bbox_loss(
                    stage, deltas[stage], target
                )
        for addition in self.additions:
            losses.update(addition.losses(self, batch, targets))
        return losses

    def _cls_losses(
        self, stage_scores: list[list[Tensor]], targets: dict[int, StageTargets]
    ) -> dict[str, Tensor]:
        """L_cls(c, labels of Aᵏ) / N for every label stage (Eq. 1).

        Args:
            stage_scores: c, levels of (N, A·C, H, W): once for all stages, or a
                cascade's for each stage.
            targets: Of the stages to compute.
        """
        weights = self.stage_loss_weights
        stages = [k for k in targets if k < self.label_stages]
        if len(stage_scores) == 1:
            # A cascade's outputs must all stay in the graph.
            stages = [k for k in stages if weights[k] != 0 or k == 0]
            values = self.label_losses(stage_scores[0], {k: targets[k] for k in stages})
        else:
            values = [
                self.label_losses(stage_scores[k], {k: targets[k]})[0] for k in stages
            ]
        return {
            _name('loss_cls', k): value if weights[k] == 1 else value * weights[k]
            for k, value in zip(stages, values)
        }

    def label_losses(
        self, levels: list[Tensor], targets: dict[int, StageTargets]
    ) -> list[Tensor]:
        """Classification loss of one output under several label sets.

        Args:
            levels: c, (N, A·C, H, W) each.
            targets: Of each stage whose labels it meets.

        Returns:
            A scalar for each stage, divided by its normaliser.
        """
        modules = [self.stage_loss_cls[k - 1] if k else self.loss_cls for k in targets]
        return label_set_losses(
            modules, levels, self.cls_out_channels, list(targets.values())
        )

    def _bbox_loss(self, stage: int, deltas: Tensor, targets: StageTargets) -> Tensor:
        """L_reg(tᵏ, targets of Aᵏ) / N_k over the stage's positives (Eq. 2).

        Args:
            stage: k.
            deltas: tᵏ, (N, A, 4).
            targets: The stage's targets.

        Returns:
            A scalar; 0 with a graph where the stage has no positive.
        """
        pred = deltas.flatten(0, 1)[targets.rows]
        if len(pred) == 0:
            return pred.sum()
        is_positive = targets.positive.flatten()[targets.rows, None]
        boxes = targets.boxes.flatten(0, 1)
        boxes = boxes[targets.rows % len(boxes)]
        pred = torch.where(is_positive, pred, 0)
        coder = self.stage_coders[stage]
        if self._loses_on_boxes():
            pred = get_box_tensor(coder.decode(boxes, pred))
            target = targets.gt_bboxes
        else:
            target = coder.encode(boxes, targets.gt_bboxes)
        # A row that isn't positive is its own target, and so costs nothing.
        target = torch.where(is_positive, target, pred.detach())
        return self.box_loss(stage, pred, target, targets.avg_factor)

    def box_loss(
        self, stage: int, pred: Tensor, target: Tensor, avg_factor: Tensor
    ) -> Tensor:
        """The base head's box loss of stage k: (P, 4) against (P, 4), a scalar."""
        loss = self.stage_loss_bbox[stage - 1] if stage else self.loss_bbox
        return masked_sum(loss, pred, target, avg_factor)

    def _base_loss(self, *inputs) -> dict:
        """Stage 0 by the base head itself, whatever its loss is."""
        with self._as_base_head():
            losses = super().loss_by_feat(*inputs)
        weight = self.stage_loss_weights[0]
        if weight != 1:
            self._weigh_base_labels(losses, weight)
        return {**self._base_positives, **losses}

    def _weigh_base_labels(self, losses: dict, weight: float) -> None:
        """Give the base head's classification loss its weight in Eq. 1."""
        losses['loss_cls'] = [loss * weight for loss in losses['loss_cls']]

    # ------------------------------------------------------------- targets

    @torch.no_grad()
    def refine(
        self, stage: int, boxes: Tensor, usable: Tensor, deltas: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Aᵏ = decode(Aᵏ⁻¹, tᵏ⁻¹), detached, in float32, not clipped.

        Args:
            stage: k.
            boxes: Aᵏ⁻¹, (N, A, 4) or (1, A, 4), xyxy in pixels.
            usable: (N, A) bool.
            deltas: tᵏ⁻¹, (N, A, 4).

        Returns:
            Aᵏ, (N, A, 4), and the anchors still usable. One that is not finite
            or has no area is out for good; it keeps its last sound box.
        """
        boxes = boxes.expand_as(deltas)
        with torch.autocast(boxes.device.type, enabled=False):
            refined = self.stage_coders[stage - 1].decode(
                boxes.flatten(0, 1), deltas.detach().float().flatten(0, 1)
            )
        refined = get_box_tensor(refined).view_as(boxes)
        x1, y1, x2, y2 = refined.unbind(-1)
        # False also where an area is NaN or infinite.
        area = (x2 - x1) * (y2 - y1)
        sound = (x2 > x1) & (y2 > y1) & (area > 0) & (area < float('inf'))
        return torch.where(sound[..., None], refined, boxes), usable & sound

    def final_boxes(self, batch: TrainingBatch) -> tuple[Tensor, Tensor]:
        """Where the boxes end up, after the last regression.

        Returns:
            (N, A, 4), detached, xyxy in pixels, not clipped, and the anchors still
            usable, (N, A).
        """
        boxes, usable = batch.boxes, batch.usable
        for stage in range(self.num_stages, self.reg_stages + 1):
            boxes, usable = self.refine(stage, boxes, usable, batch.deltas[stage - 1])
        return boxes, usable

    @torch.no_grad()
    def _stage_targets(
        self, stage: int, boxes: Tensor, usable: Tensor, gts: GroundTruth
    ) -> StageTargets:
        """Labels and box targets of Aᵏ; see :class:`StageTargets`."""
        assigner = self.stage_assigners[stage - 1] if stage else self.assigner
        rule = rule_of(assigner)
        if rule is not None:
            gt_inds = gts.match(boxes, usable, rule)
        else:
            gt_inds = gts.assign(boxes.expand(*usable.shape, 4), usable, assigner)
        avg_factor = None
        if not isinstance(self.sampler, PseudoSampler):
            gt_inds, avg_factor = gts.sample(
                boxes.expand(*usable.shape, 4), usable, gt_inds, self.sampler
            )
        return gts.targets(
            boxes,
            gt_inds,
            num_classes=self.num_classes,
            pos_weight=self.train_cfg['pos_weight'],
            avg_factor=avg_factor,
            choose_rows=is_on_cpu(boxes) or not self._sums_boxes(),
        )

    def get_targets(self, anchor_list, valid_flag_list, *args, **kwargs) -> tuple:
        """The base head's targets; its normaliser becomes the mean over the ranks.

        So N processes train as one with N times the batch.
        """
        targets = list(
            super().get_targets(anchor_list, valid_flag_list, *args, **kwargs)
        )
        labels = torch.cat(targets[0], dim=1)
        positive = (labels >= 0) & (labels < self.num_classes)
        targets[4] = _mean_over_ranks([targets[4]], labels.device)[0]
        self._base_positives = dict(num_pos=positive.sum().float())
        self._base_avg_factor = targets[4]
        return tuple(targets)

    def _share_normalisers(self, targets: dict[int, StageTargets]) -> None:
        """Average each N_k over the ranks, all at once; apply ``cls_normalizer``."""
        own = [target.avg_factor for target in targets.values()]
        of_labels = [
            factor if target.cls_avg_factor is None else target.cls_avg_factor
            for factor, target in zip(own, targets.values())
        ]
        device = next(iter(targets.values())).labels.device
        shared = _mean_over_ranks(own + of_labels, device)
        first = self._base_avg_factor
        for stage, factor, cls_factor in zip(targets, shared, shared[len(own) :]):
            first = factor if stage == 0 else first
            cls_factor = first if self.cls_normalizer == 'first' else cls_factor
            targets[stage] = targets[stage]._replace(
                avg_factor=factor, cls_avg_factor=cls_factor
            )

    def first_rule(self):
        """How stage 0 is matched, where it is computed with the later stages."""
        plain = isinstance(self.sampler, PseudoSampler) and self._base_is_plain()
        return rule_of(self.assigner) if plain else None

    def _loses_on_boxes(self) -> bool:
        """Whether the box loss compares boxes in pixels, not deltas."""
        return self.reg_decoded_bbox

    def _first_deltas(self, levels: list[Tensor]) -> list[Tensor]:
        """What the first stage's coder decodes, (N, A·4, H, W) of each level."""
        return levels

    def _sums_boxes(self) -> bool:
        """Whether the box loss is a sum over rows, each by itself."""
        return sums_over_anchors(self.loss_bbox)

    # ----------------------------------------------------------- inference

    def predict_by_feat(
        self, cls_scores: list[Tensor], bbox_preds: list[Tensor], *args, **kwargs
    ) -> InstanceList:
        """The base head's: boxes by the chained coder, scores merged."""
        cls_scores = self.merge_scores(cls_scores)
        for addition in self.additions:
            kwargs.update(addition.predict_inputs(self, bbox_preds))
        return super().predict_by_feat(cls_scores, bbox_preds, *args, **kwargs)

    def _bbox_post_process(self, *args, **kwargs) -> InstanceData:
        """The base head's suppression, as the additions have it."""
        post_process = super()._bbox_post_process
        for addition in self.additions:
            post_process = partial(addition.post_process, post_process)
        return post_process(*args, **kwargs)

    # ------------------------------------------------------------- helpers

    @contextmanager
    def _as_base_head(self) -> Iterator[None]:
        """The base head's own coder, while the base head computes its loss."""
        coder = self.bbox_coder
        self.bbox_coder = self.stage_coders[0]
        try:
            yield
        finally:
            self.bbox_coder = coder


def _name(loss: str, stage: int) -> str:
    """The log name of a stage's loss: the base head's for stage 0."""
    return f'{loss}_s{stage}' if stage else loss


def _mean_over_ranks(factors: list, device: torch.device) -> list:
    """Normalisers averaged over the processes, never below 1."""
    if get_world_size() == 1:
        return factors
    total = torch.stack(
        [torch.as_tensor(f, dtype=torch.float32, device=device) for f in factors]
    )
    return list(reduce_mean(total).clamp(min=1).unbind())
