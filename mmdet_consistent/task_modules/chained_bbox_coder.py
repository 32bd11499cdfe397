"""Decoding a box through several regression stages."""

from collections.abc import Sequence
from typing import Any, Optional, Union

from mmdet.models.task_modules.coders import BaseBBoxCoder
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import BaseBoxes
from torch import Tensor


@TASK_UTILS.register_module()
class ChainedBBoxCoder(BaseBBoxCoder):
    """Decodes S·4 deltas per box, each stage from where the previous one ended.

    mmdet's inference path cuts the box output into rows of ``encode_size``, keeps the
    rows that survive the score threshold and top-k, and calls ``decode`` once. With
    this coder in place of the base head's, that call returns the boxes of the last
    stage, and nothing else changes.

    Args:
        stages: One box coder (config or object) per stage, each with four deltas per
            box.
        extra_values: Number of values that follow the deltas of a box.

    Raises:
        ValueError: If a stage's coder does not have four deltas per box, with four
            means and deviations.
    """

    def __init__(
        self, stages: Sequence[Union[dict, BaseBBoxCoder]], extra_values: int = 0
    ) -> None:
        super().__init__(use_box_type=False)
        self.stages = [
            TASK_UTILS.build(stage) if isinstance(stage, dict) else stage
            for stage in stages
        ]
        for index, stage in enumerate(self.stages):
            if stage.encode_size != 4:
                raise ValueError(
                    f'the box coder of regression stage {index} is '
                    f'{type(stage).__name__} with {stage.encode_size} deltas per '
                    'box; only coders with 4 deltas per box can be chained: use '
                    "type='DeltaXYWHBBoxCoder' or another 4-delta coder"
                )
            for name in ('means', 'stds'):
                values = getattr(stage, name, (0,) * 4)
                if len(values) != 4:
                    raise ValueError(
                        f'the box coder of regression stage {index} has '
                        f'target_{name}={tuple(values)}; give four numbers, for '
                        'dx, dy, dw and dh'
                    )
        self.encode_size = 4 * len(self.stages) + extra_values

    def encode(self, bboxes: Tensor, gt_bboxes: Tensor) -> Tensor:
        """Raise: the target of a stage depends on the boxes of that stage."""
        raise NotImplementedError(
            'a chained coder has no single target: call `stages[k].encode` with the '
            'boxes that stage k starts from'
        )

    def decode(
        self,
        bboxes: Union[Tensor, BaseBoxes],
        pred_bboxes: Tensor,
        max_shape: Optional[Sequence] = None,
        **kwargs: Any,
    ) -> Union[Tensor, BaseBoxes]:
        """Decode all stages, and clip to the image once at the end.

        Args:
            bboxes: Prior boxes, (..., 4), xyxy in pixels.
            pred_bboxes: Deltas, (..., S·4 + E), stage after stage. The E extra values
                are ignored.
            max_shape: (height, width) to clip the last stage's boxes to.
            **kwargs: Passed to each stage's ``decode``.

        Returns:
            Boxes of the last stage, (..., 4), xyxy in pixels.
        """
        last = len(self.stages) - 1
        for index, stage in enumerate(self.stages):
            bboxes = stage.decode(
                bboxes,
                pred_bboxes[..., 4 * index : 4 * index + 4],
                max_shape=max_shape if index == last else None,
                **kwargs,
            )
        return bboxes
