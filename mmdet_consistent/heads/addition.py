"""Extension point for everything beyond the paper."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Optional

from mmdet.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor, nn

from .options import are_configs
from .targets import GroundTruth, StageTargets
from .variants import Variant


class TrainingBatch(NamedTuple):
    """State of a batch once its anchors are refined.

    Attributes:
        cls_scores: Logits of each level, (N, A·C, H, W).
        bbox_preds: Box outputs of each level, (N, A·(S·4 + E), H, W).
        deltas: tᵏ of each regression stage, (N, ΣHWA, 4).
        boxes: Anchors of the last stage, (N, ΣHWA, 4), detached, float32, xyxy in
            pixels. ``head.final_boxes`` returns where the last regression takes them.
        valid: Anchors that are still valid there, (N, ΣHWA) bool.
        gts: Ground truth.
    """

    cls_scores: list[Tensor]
    bbox_preds: list[Tensor]
    deltas: list[Tensor]
    boxes: Tensor
    valid: Tensor
    gts: GroundTruth


class Addition(nn.Module):
    """One optional part of a consistent head. This base class does nothing.

    A head calls the methods of its additions in the order of their list. An addition is
    registered in mmdet's ``MODELS`` and named in the head's
    ``additions=[dict(type='…')]``.
    """

    #: Number of values per anchor that the box output must supply after its deltas; see
    #: ``head.addition_values``.
    num_values: int = 0

    @staticmethod
    def build_all(configs: Sequence[dict], variant: Variant) -> nn.ModuleList:
        """Build the additions of a head.

        Args:
            configs: The head's ``additions``.
            variant: The head's variant; a cascade takes no additions.

        Raises:
            ValueError: If ``configs`` is not a list of configs of additions, names one
                twice, or the variant takes none.
        """
        if not are_configs(configs):
            raise ValueError(
                "additions must be a list of configs, [dict(type='…', …)], got "
                f'{configs!r}'
            )
        if configs and variant.has_separate_towers:
            raise ValueError(
                f"variant='{variant.type}' takes no additions: remove them, or use "
                "variant='consistent'"
            )
        built = [MODELS.build(config) for config in configs]
        for index, addition in enumerate(built):
            if not isinstance(addition, Addition):
                raise ValueError(
                    f'additions[{index}] is a {type(addition).__name__}, not an '
                    'Addition; mmdet_consistent/additions has the available ones'
                )
        kinds = [type(addition).__name__ for addition in built]
        twice = sorted({kind for kind in kinds if kinds.count(kind) > 1})
        if twice:
            raise ValueError(f'additions names {", ".join(twice)} more than once')
        return nn.ModuleList(built)

    def attach(self, head: Any) -> None:
        """Validate and modify the constructed head.

        Raises:
            ValueError: If the addition does not support this head.
        """
        if head.train_cfg and head.num_stages == 1 and not head.first_stage.is_fused:
            raise ValueError(
                f'{type(self).__name__} needs a stage whose targets it can change, but '
                f'{type(head).__name__} with one stage leaves them to its base head: '
                'set label_stages or reg_stages to 2'
            )

    def adjust_targets(
        self, head: Any, batch: TrainingBatch, targets: dict[int, StageTargets]
    ) -> dict[int, StageTargets]:
        """Return changed training targets.

        Args:
            head: The consistent head.
            batch: State of the batch.
            targets: Targets of each stage, except one that the base head computes.
        """
        return targets

    def losses(
        self, head: Any, batch: TrainingBatch, targets: dict[int, StageTargets]
    ) -> dict[str, Tensor]:
        """Compute additional losses, by name."""
        return {}

    def predict_inputs(self, head: Any, bbox_preds: list[Tensor]) -> dict:
        """Return arguments for mmdet's ``predict_by_feat``, such as score factors."""
        return {}

    def post_process(
        self, base: Callable[..., InstanceData], *args: Any, **kwargs: Any
    ) -> InstanceData:
        """Suppress and rank the boxes of one image.

        Args:
            base: ``_bbox_post_process`` of mmdet, or of the previous additions.
            *args: Its arguments; for most heads ``results`` (boxes, scores, labels,
                score factors) and ``test_cfg`` come first.
            **kwargs: Likewise.
        """
        return base(*args, **kwargs)

    def not_exported(self) -> Optional[str]:
        """Return why this addition cannot be exported, or ``None``."""
        return None
