"""What every addition to a consistent head has in common."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Optional

from mmdet.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor, nn

from .options import are_configs
from .targets import GroundTruth, StageTargets
from .variants import Variant


class TrainingBatch(NamedTuple):
    """What a head knows of a batch once its boxes are refined.

    Attributes:
        cls_scores: Logits of each level, (N, A·C, H, W).
        bbox_preds: Box outputs of each level, (N, A·(S·4 + E), H, W).
        deltas: tᵏ of each regression stage, (N, A, 4).
        boxes: Boxes that the last stage starts from, (N, A, 4), detached, xyxy in
            pixels; for where boxes end up see ``head.final_boxes``.
        usable: Anchors that are still sound there, (N, A) bool.
        gts: The ground truth.
    """

    cls_scores: list[Tensor]
    bbox_preds: list[Tensor]
    deltas: list[Tensor]
    boxes: Tensor
    usable: Tensor
    gts: GroundTruth


class Addition(nn.Module):
    """One optional piece of a consistent head; this one does nothing.

    A head calls the methods of each of its additions in the order of their list.
    An addition is registered in mmdet's ``MODELS`` and named in the head's
    ``additions=[dict(type='…')]``.
    """

    #: Values that the box output has to give for each anchor, after its deltas; see
    #: ``head.values_of``.
    values: int = 0

    @staticmethod
    def build_all(configs: Sequence[dict], variant: Variant) -> nn.ModuleList:
        """Build the additions of a head.

        Args:
            configs: The head's ``additions``.
            variant: The head's; a cascade takes none.

        Raises:
            ValueError: If it isn't a list of configs of additions, or there can be
                none.
        """
        if not are_configs(configs):
            raise ValueError(
                "additions must be a list of configs, [dict(type='…', …)], got "
                f'{configs!r}'
            )
        if configs and variant.own_towers:
            raise ValueError(
                f"variant='{variant.type}' takes no additions: leave them out, or use "
                "variant='consistent'"
            )
        built = [MODELS.build(config) for config in configs]
        for addition in built:
            if not isinstance(addition, Addition):
                raise ValueError(
                    f'additions has a {type(addition).__name__}, which is none: see '
                    'mmdet_consistent/additions for those that there are'
                )
        kinds = [type(addition).__name__ for addition in built]
        twice = sorted({kind for kind in kinds if kinds.count(kind) > 1})
        if twice:
            raise ValueError(f'additions has {", ".join(twice)} more than once')
        return nn.ModuleList(built)

    def attach(self, head: nn.Module) -> None:
        """Look at the head that is built, and change what has to be changed.

        Raises:
            ValueError: If the head is none that this can be added to.
        """
        if head.train_cfg and head.num_stages == 1 and head.first_rule() is None:
            raise ValueError(
                f'{type(self).__name__} needs a stage whose targets are made here, '
                f'and with one stage {type(head).__name__} leaves all to its base: '
                'set label_stages or reg_stages to 2'
            )

    def adjust_targets(
        self, head: nn.Module, batch: TrainingBatch, targets: dict[int, StageTargets]
    ) -> dict[int, StageTargets]:
        """Change what the stages are trained on.

        Args:
            head: The consistent head.
            batch: See :class:`TrainingBatch`.
            targets: Of each stage that the base head does not train by itself.
        """
        return targets

    def losses(
        self, head: nn.Module, batch: TrainingBatch, targets: dict[int, StageTargets]
    ) -> dict[str, Tensor]:
        """Losses of its own, by name."""
        return {}

    def predict_inputs(self, head: nn.Module, bbox_preds: list[Tensor]) -> dict:
        """More arguments for mmdet's ``predict_by_feat``, such as score factors."""
        return {}

    def post_process(
        self, base: Callable[..., InstanceData], *args, **kwargs
    ) -> InstanceData:
        """Suppress and rank one image's boxes.

        Args:
            base: mmdet's ``_bbox_post_process``, or that of the additions before.
            *args: What that takes: of most heads, ``results`` (boxes, scores,
                labels, score factors) and ``test_cfg`` first.
            **kwargs: Likewise.
        """
        return base(*args, **kwargs)

    def final_scores(self, scores: Tensor, values: Tensor) -> Tensor:
        """What boxes are ranked by, for an export; ``post_process`` without its rest.

        Args:
            scores: (…, K), plain, above 0.
            values: The addition's own, (…, its values).
        """
        return scores

    def not_exported(self) -> Optional[str]:
        """What of it an export would leave out, and the way out, if anything."""
        return None
