"""Grid anchors and valid flags, kept from one training step to the next."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Union

import torch
from mmdet.models.task_modules.prior_generators import anchor_inside_flags
from mmdet.structures.bbox import cat_boxes, get_box_tensor
from torch import Tensor

# Shapes remembered. Batches of one aspect ratio share few shapes; an entry
# holds 17 bytes an anchor.
CAPACITY = 16


class Recent:
    """The results of the last few different calls.

    A copy starts empty: an averaged copy of a model has no use for them.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self.items: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What ``make()`` gave for this key, or gives now."""
        if key in self.items:
            self.items.move_to_end(key)
        else:
            self.items[key] = make()
            if len(self.items) > self.capacity:
                self.items.popitem(last=False)
        return self.items[key]

    def __deepcopy__(self, memo: dict) -> 'Recent':
        return Recent(self.capacity)

    def __reduce__(self) -> tuple:
        return Recent, (self.capacity,)


class RememberedAnchors:
    """Keeps an mmdet :class:`AnchorHead`'s grid anchors and valid flags."""

    def get_anchors(
        self,
        featmap_sizes: list[tuple],
        batch_img_metas: list[dict],
        device: Union[torch.device, str] = 'cuda',
    ) -> tuple[list, list]:
        """The base head's, remembered for the last few shapes."""
        key = (
            tuple(tuple(size) for size in featmap_sizes),
            tuple(tuple(meta['pad_shape'][:2]) for meta in batch_img_metas),
            str(device),
            torch.is_inference_mode_enabled(),
        )
        make = super().get_anchors
        kept = self.__dict__.setdefault('_recent_anchors', Recent()).get(
            key, lambda: make(featmap_sizes, batch_img_metas, device=device)
        )
        # Lists of its own for everybody: some heads put other things into them.
        return tuple([list(levels) for levels in images] for images in kept)

    def prior_anchors(
        self, cls_scores: list[Tensor], batch_img_metas: list[dict]
    ) -> tuple[Tensor, Tensor]:
        """A⁰, (1, A, 4) float32, xyxy in pixels, and who takes part, (N, A).

        Raises:
            ValueError: If an image has no anchor inside it.
        """
        sizes = [scores.shape[-2:] for scores in cls_scores]
        device = cls_scores[0].device
        anchors, flags = self.get_anchors(sizes, batch_img_metas, device=device)
        boxes = get_box_tensor(cat_boxes(anchors[0])).float()
        border = self.train_cfg['allowed_border']
        usable = torch.stack(
            [
                anchor_inside_flags(boxes, torch.cat(f), m['img_shape'][:2], border)
                for f, m in zip(flags, batch_img_metas)
            ]
        )
        if border >= 0 and not usable.any(dim=1).all():
            raise ValueError(
                f'train_cfg.allowed_border={border} leaves an image of this batch '
                'without any anchor; set it to -1 to use all anchors, or give the '
                'anchor generator smaller anchors'
            )
        return boxes[None], usable
