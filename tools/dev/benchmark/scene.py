"""Synthetic inputs that load a head as a half-trained detector would.

Some anchors are already pulled towards a ground truth and know its class, so the
later stage has positives of its own and post-processing has survivors. The rest is
background. Every contender gets the same logits and first deltas.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from mmdet.models.task_modules import MaxIoUAssigner
from mmengine.structures import InstanceData
from torch import Tensor, nn

from .cases import Case
from .detectors import SLIM_CHANNELS

PULL = 0.7  # fraction of the way from an anchor to its ground truth
JITTER = 0.05  # in sides of an anchor
# Later deltas barely move the boxes, so that suppression keeps as many of them.
LATER_STEP = 0.01
SMALLEST = 0.75  # smallest side of an image of varied shape, as a fraction


@dataclass
class Scene:
    """The inputs of one case.

    Attributes:
        ground_truths: ``bboxes`` (G, 4), xyxy in pixels, and ``labels`` (G,).
        logits: Logits of each level, (N, A, C, H, W), float32.
        deltas: First-stage deltas of each level, (N, A, 4, H, W), float32.
        anchors: Number of anchors per image.
    """

    ground_truths: list[InstanceData]
    logits: list[Tensor]
    deltas: list[Tensor]
    anchors: int


def _padded(case: Case, sides: tuple) -> tuple:
    divisor = 32 if case.detector == 'retinanet' else 1
    return tuple(math.ceil(side / divisor) * divisor for side in sides)


def image_metas(case: Case) -> Iterator[list[dict]]:
    """Yield the images' meta data of each repetition, as mmdet's preprocessor does."""
    generator = torch.Generator().manual_seed(2)
    full = (case.height, case.width)
    smallest = SMALLEST if case.shapes == 'varied' else 1.0
    while True:
        fractions = smallest + (1 - smallest) * torch.rand(
            case.batch, 2, generator=generator
        )
        shapes = [tuple(math.ceil(a * b) for a, b in zip(full, f)) for f in fractions]
        yield [
            dict(
                img_shape=shape,
                ori_shape=shape,
                pad_shape=_padded(case, shape),
                batch_input_shape=_padded(case, full),
                scale_factor=(1.0, 1.0),
            )
            for shape in shapes
        ]


def make_ground_truths(case: Case, generator: torch.Generator) -> list[InstanceData]:
    """Draw boxes whose sides are log-uniform from 16 pixels to half the image."""
    images = []
    size = torch.tensor([case.width, case.height], dtype=torch.float32)
    if case.shapes == 'varied':
        size = size * SMALLEST
    for _ in range(case.batch):
        shape = (case.ground_truths, 2)
        sides = 16 * (size / 32).clamp(min=1) ** torch.rand(shape, generator=generator)
        corner = torch.rand(shape, generator=generator) * (size - sides)
        labels = torch.randint(case.classes, (case.ground_truths,), generator=generator)
        images.append(
            InstanceData(bboxes=torch.cat([corner, corner + sides], 1), labels=labels)
        )
    return images


def make_scene(case: Case, reference: nn.Module, seed: int = 0) -> Scene:
    """Build the inputs of a case.

    Args:
        case: The case.
        reference: mmdet's own head, for its anchors and its box coder.
        seed: Seed of all random numbers; the scene is the same on every device.
    """
    generator = torch.Generator().manual_seed(seed)
    ground_truths = make_ground_truths(case, generator)
    height, width = _padded(case, (case.height, case.width))
    sizes = [
        (math.ceil(height / stride[1]), math.ceil(width / stride[0]))
        for stride in reference.prior_generator.strides
    ]
    anchors = reference.prior_generator.grid_priors(sizes, device='cpu')
    targets = [_match(torch.cat(anchors), gts, reference) for gts in ground_truths]
    classes, deltas = (torch.stack(parts) for parts in zip(*targets))

    softmax = not reference.use_sigmoid_cls
    counts = [len(level) for level in anchors]
    scene = Scene(ground_truths, [], [], sum(counts))
    for size, labels, level_deltas in zip(
        sizes, classes.split(counts, 1), deltas.split(counts, 1)
    ):
        shape = (case.batch, *size, -1)
        labels, level_deltas = labels.view(shape), level_deltas.unflatten(1, shape[1:])
        logits = torch.randn(
            *labels.shape, reference.cls_out_channels, generator=generator
        )
        if softmax:
            logits[..., -1] += 6.0
        else:
            logits = logits * 0.8 - 5.0
        matched = (labels >= 0).nonzero(as_tuple=True)
        logits[(*matched, labels[matched])] += 6.0 if softmax else 4.0
        scene.logits.append(logits.permute(0, 3, 4, 1, 2).to(case.device))
        scene.deltas.append(level_deltas.permute(0, 3, 4, 1, 2).to(case.device))
    jitter = JITTER / torch.tensor(reference.bbox_coder.stds).view(4, 1, 1)
    for level in scene.deltas:
        noise = torch.randn(level.shape, generator=generator) * jitter
        level += noise.to(level)
    for instances in ground_truths:
        instances.bboxes = instances.bboxes.to(case.device)
        instances.labels = instances.labels.to(case.device)
    return scene


def _match(
    anchors: Tensor, gts: InstanceData, head: nn.Module
) -> tuple[Tensor, Tensor]:
    """Return classes (A,), -1 for background, and pulled deltas (A, 4)."""
    assigner = MaxIoUAssigner(0.4, 0.4, min_pos_iou=0.4, match_low_quality=False)
    assigned = assigner.assign(InstanceData(priors=anchors), gts).gt_inds
    labels = torch.full_like(assigned, -1)
    deltas = anchors.new_zeros(len(anchors), 4)
    positive = assigned > 0
    index = assigned[positive] - 1
    labels[positive] = gts.labels[index]
    deltas[positive] = PULL * head.bbox_coder.encode(
        anchors[positive], gts.bboxes[index]
    )
    return labels, deltas


def tensors(structure: Any) -> Iterator[Tensor]:
    """Yield all tensors of a head's nested outputs."""
    if isinstance(structure, Tensor):
        yield structure
    else:
        for item in structure:
            yield from tensors(item)


def head_outputs(head: nn.Module, scene: Scene, case: Case) -> tuple:
    """Fill a head's outputs from the scene.

    The structure is taken from the head's own ``forward``, so a head with more
    outputs than one classification and one box tensor per level works too.

    Returns:
        The head's outputs. Every tensor is a leaf that requires gradients, in
        bfloat16 under bf16, as autocast convolutions leave it.
    """
    sizes = [logits.shape[-2:] for logits in scene.logits]
    with torch.no_grad():
        outputs = head(
            [
                torch.zeros(case.batch, SLIM_CHANNELS, *size, device=case.device)
                for size in sizes
            ]
        )
    generator = torch.Generator().manual_seed(1)
    for tensor in tensors(outputs):
        noise = torch.randn(tensor.shape, generator=generator) * LATER_STEP
        tensor.copy_(noise.to(tensor))
    for tensor, level in zip(outputs[0], scene.logits):
        # (N, K·A·C, H, W): a cascade's stages one after the other.
        tensor.unflatten(1, (-1, *level.shape[1:3])).copy_(level[:, None])
    for tensor, level in zip(outputs[1], scene.deltas):
        # (N, A·S·4, H, W): the first stage's deltas come first of an anchor's.
        tensor.unflatten(1, (level.shape[1], -1))[:, :, :4] = level
    dtype = torch.bfloat16 if case.dtype == 'bf16' else torch.float32

    def leaf(item: Any) -> Any:
        if isinstance(item, Tensor):
            return item.to(dtype).contiguous().requires_grad_()
        return [leaf(part) for part in item]

    return tuple(leaf(item) for item in outputs)
