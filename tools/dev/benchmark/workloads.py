"""The work that is timed: one class per workload, one repetition per call."""

from collections.abc import Callable, Mapping
from typing import Union

import torch
from mmdet.structures import DetDataSample
from torch import Tensor, nn

from mmdet_consistent.utils.timing import Clock, Parts

from .cases import REFERENCE, Case, Contender
from .detectors import build_detector, build_slim_head
from .scene import (
    Scene,
    head_outputs,
    image_metas,
    make_ground_truths,
    make_scene,
    tensors,
)

# Candidates per image before non-maximum suppression, in whole inference.
SURVIVORS = 2000


def total_loss(losses: Mapping[str, Union[Tensor, list]]) -> Tensor:
    """Sum what mmdet optimises: every entry whose name contains ``loss``."""
    values = []
    for name, value in losses.items():
        if 'loss' in name:
            values += [value] if isinstance(value, Tensor) else list(value)
    return sum(value.mean() for value in values)


def autocast(case: Case) -> torch.autocast:
    """Return an autocast to bfloat16, enabled where the case asks for it."""
    return torch.autocast(
        case.device, dtype=torch.bfloat16, enabled=case.dtype == 'bf16'
    )


class Workload:
    """Work that is timed as a whole."""

    def reset(self) -> None:
        """Prepare a repetition; not timed."""

    def once(self) -> None:
        """Process one batch."""
        raise NotImplementedError

    def __call__(self, clock: Clock) -> Parts:
        """Return the seconds of each part of one repetition."""
        self.reset()
        start = clock()
        self.once()
        return dict(total=clock() - start)


class HeadLoss(Workload):
    """``loss_by_feat`` and its backward pass, without backbone and towers."""

    def __init__(self, case: Case, contender: Contender, scene: Scene) -> None:
        self.case = case
        self.ground_truths = scene.ground_truths
        self.head = build_slim_head(case, contender)
        self.outputs = head_outputs(self.head, scene, case)
        self.leaves = list(tensors(self.outputs))
        self.loss = self.head.loss_by_feat
        if contender.mode == 'compile':
            self.loss = torch.compile(self.loss)
        self.stream = image_metas(case)
        self.reset()

    def reset(self) -> None:
        """Drop the last repetition's gradients; draw the images' shapes."""
        for leaf in self.leaves:
            leaf.grad = None
        self.metas = next(self.stream)

    def forward(self) -> Tensor:
        """Return the total loss."""
        with autocast(self.case):
            losses = self.loss(*self.outputs, self.ground_truths, self.metas)
        return total_loss(losses)

    def once(self) -> None:
        """Run forward and backward."""
        self.forward().backward()

    def __call__(self, clock: Clock) -> Parts:
        """Return the seconds of ``forward``, ``backward`` and both."""
        self.reset()
        start = clock()
        loss = self.forward()
        middle = clock()
        loss.backward()
        end = clock()
        return dict(forward=middle - start, backward=end - middle, total=end - start)


class PostProcess(Workload):
    """``predict_by_feat``: threshold, top-k, decoding, suppression."""

    def __init__(self, case: Case, contender: Contender, scene: Scene) -> None:
        self.head = build_slim_head(case, contender).eval()
        self.outputs = head_outputs(self.head, scene, case)
        self.metas = next(image_metas(case))

    @torch.no_grad()
    def once(self) -> None:
        """Process one batch."""
        self.head.predict_by_feat(*self.outputs, batch_img_metas=self.metas)


class WholeDetector(Workload):
    """A detector and a batch of random images."""

    def __init__(self, case: Case, contender: Contender) -> None:
        self.case = case
        self.model = build_detector(case, contender)
        self.channels_last = contender.mode == 'channels_last'
        if self.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
        generator = torch.Generator().manual_seed(0)
        ground_truths = make_ground_truths(case, generator)
        self.batch: dict = dict(inputs=[], data_samples=[])
        for meta, instances in zip(next(image_metas(case)), ground_truths):
            shape = (3, *meta['img_shape'])
            self.batch['inputs'].append(
                torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
            )
            sample = DetDataSample(metainfo=meta, gt_instances=instances)
            self.batch['data_samples'].append(sample)

    def preprocess(self, training: bool) -> dict:
        """Return normalised, padded inputs on the device."""
        data = self.model.data_preprocessor(self.batch, training)
        if self.channels_last:
            data['inputs'] = data['inputs'].contiguous(
                memory_format=torch.channels_last
            )
        return data


class TrainStep(WholeDetector):
    """Preprocessing, forward, backward and an optimizer step.

    The learning rate is 0, so that all repetitions do the same work.
    """

    def __init__(self, case: Case, contender: Contender) -> None:
        super().__init__(case, contender)
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(parameters, lr=0.0, momentum=0.9)

    def reset(self) -> None:
        """Drop the gradients of the last step."""
        self.optimizer.zero_grad()

    def once(self) -> None:
        """Take one step."""
        data = self.preprocess(training=True)
        with autocast(self.case):
            losses = self.model(**data, mode='loss')
        total_loss(losses).backward()
        self.optimizer.step()


class Inference(WholeDetector):
    """A test step: images in, boxes out.

    An untrained detector finds nothing, or everything, at any fixed threshold, so
    the threshold is set such that :data:`SURVIVORS` scores of an image exceed it.
    """

    def __init__(self, case: Case, contender: Contender, reference: nn.Module) -> None:
        super().__init__(case, contender)
        # The same weights as mmdet's detector wherever it has them.
        self.model.load_state_dict(reference.state_dict(), strict=False)
        self.model.eval()
        self.model.test_cfg.score_thr = self._threshold(reference)
        self.model.bbox_head.test_cfg.score_thr = self.model.test_cfg.score_thr

    @torch.no_grad()
    def _threshold(self, reference: nn.Module) -> float:
        data = self.preprocess(training=False)
        head = reference.bbox_head
        rows = [
            level.permute(0, 2, 3, 1).reshape(-1, head.cls_out_channels)
            for level in reference(data['inputs'][:1], mode='tensor')[0]
        ]
        scores = torch.cat(rows).float()
        if head.use_sigmoid_cls:
            scores = scores.sigmoid()
        else:
            scores = scores.softmax(-1)[:, :-1]
        scores = scores.flatten()
        return float(scores.topk(min(SURVIVORS, len(scores))).values[-1])

    @torch.no_grad()
    def once(self) -> None:
        """Process one batch."""
        data = self.preprocess(training=False)
        with autocast(self.case):
            self.model(**data, mode='predict')


def prepare(case: Case) -> tuple[Callable[[Contender], Workload], int]:
    """Make the inputs of a case.

    Returns:
        A function that builds a contender's workload on these inputs, and the number
        of anchors per image.
    """
    reference = Contender(REFERENCE)
    scene = make_scene(case, build_slim_head(case, reference))
    if case.workload == 'inference':
        model = build_detector(case, reference).eval()

    def build(contender: Contender) -> Workload:
        if case.workload == 'head_loss':
            return HeadLoss(case, contender, scene)
        if case.workload == 'postprocess':
            return PostProcess(case, contender, scene)
        if case.workload == 'train_step':
            return TrainStep(case, contender)
        return Inference(case, contender, model)

    return build, scene.anchors
