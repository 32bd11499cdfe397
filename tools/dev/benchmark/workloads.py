"""The work that is timed: one class each, a repetition per call."""

from collections.abc import Mapping
from typing import Union

import torch
from mmdet.structures import DetDataSample
from torch import Tensor, nn

from mmdet_consistent.utils.timing import Clock, Parts

from .cases import Case
from .contenders import REFERENCE, build_detector, build_slim_head, split_contender
from .scene import Scene, head_outputs, make_ground_truths, make_metas, make_scene
from .scene import tensors as tensors_of

# Candidates an image, before non-maximum suppression, in whole inference.
SURVIVORS = 2000


def total_loss(losses: Mapping[str, Union[Tensor, list]]) -> Tensor:
    """The sum that mmdet optimises: of every entry named ``loss``."""
    values = []
    for name, value in losses.items():
        if 'loss' in name:
            values += [value] if isinstance(value, Tensor) else list(value)
    return sum(value.mean() for value in values)


def autocast(case: Case) -> torch.autocast:
    """bfloat16 where the case asks for it, otherwise nothing."""
    return torch.autocast(
        case.device, dtype=torch.bfloat16, enabled=case.dtype == 'bf16'
    )


class HeadLoss:
    """``loss_by_feat`` and its backward pass, without backbone and towers."""

    def __init__(self, case: Case, contender: str, scene: Scene) -> None:
        self.case = case
        self.scene = scene
        self.head = build_slim_head(case, contender)
        self.outputs = head_outputs(self.head, scene, case)
        self.leaves = list(tensors_of(self.outputs))
        self.loss = self.head.loss_by_feat
        if split_contender(contender)[1] == 'compile':
            self.loss = torch.compile(self.loss)

    def reset(self) -> None:
        """Drop the gradients of the run before."""
        for leaf in self.leaves:
            leaf.grad = None

    def forward(self) -> Tensor:
        """The total loss."""
        with autocast(self.case):
            losses = self.loss(
                *self.outputs, self.scene.ground_truths, self.scene.metas
            )
        return total_loss(losses)

    def once(self) -> None:
        """Forward and backward, for the memory."""
        self.forward().backward()

    def __call__(self, clock: Clock) -> Parts:
        """Seconds of ``forward``, ``backward`` and both."""
        self.reset()
        start = clock()
        loss = self.forward()
        middle = clock()
        loss.backward()
        end = clock()
        return dict(forward=middle - start, backward=end - middle, total=end - start)


class _Timed:
    """Work that is timed as a whole."""

    def reset(self) -> None:
        """Drop what the run before left; nothing here."""

    def once(self) -> None:
        """One batch."""
        raise NotImplementedError

    def __call__(self, clock: Clock) -> Parts:
        """Seconds of one run."""
        self.reset()
        start = clock()
        self.once()
        return dict(total=clock() - start)


class PostProcess(_Timed):
    """``predict_by_feat``: threshold, top-k, decoding, suppression."""

    def __init__(self, case: Case, contender: str, scene: Scene) -> None:
        self.scene = scene
        self.head = build_slim_head(case, contender).eval()
        self.outputs = head_outputs(self.head, scene, case)

    @torch.no_grad()
    def once(self) -> None:
        """One batch."""
        self.head.predict_by_feat(*self.outputs, batch_img_metas=self.scene.metas)


class _WholeDetector(_Timed):
    """A detector and a batch of random images."""

    def __init__(self, case: Case, contender: str) -> None:
        self.case = case
        self.model = build_detector(case, contender)
        generator = torch.Generator().manual_seed(0)
        ground_truths = make_ground_truths(case, generator)
        samples = []
        for meta, instances in zip(make_metas(case), ground_truths):
            sample = DetDataSample(metainfo=meta)
            sample.gt_instances = instances
            samples.append(sample)
        shape = (3, case.height, case.width)
        images = [
            torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
            for _ in samples
        ]
        self.channels_last = split_contender(contender)[1] == 'channels_last'
        if self.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
        self.batch = dict(inputs=images, data_samples=samples)

    def preprocess(self, training: bool) -> dict:
        """Normalised, padded inputs on the device."""
        data = self.model.data_preprocessor(self.batch, training)
        if self.channels_last:
            data['inputs'] = data['inputs'].contiguous(
                memory_format=torch.channels_last
            )
        return data


class TrainStep(_WholeDetector):
    """Preprocessing, forward, backward and an optimizer step.

    The learning rate is 0, so that all repetitions do the same work.
    """

    def __init__(self, case: Case, contender: str) -> None:
        super().__init__(case, contender)
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(parameters, lr=0.0, momentum=0.9)

    def reset(self) -> None:
        """Drop the gradients of the step before."""
        self.optimizer.zero_grad()

    def once(self) -> None:
        """One step."""
        data = self.preprocess(training=True)
        with autocast(self.case):
            losses = self.model(**data, mode='loss')
        total_loss(losses).backward()
        self.optimizer.step()


class Inference(_WholeDetector):
    """A test step: images in, boxes out.

    An untrained detector finds nothing, or everything, at any fixed threshold;
    so the threshold is put where :data:`SURVIVORS` scores of an image pass it.
    """

    def __init__(self, case: Case, contender: str, reference: nn.Module) -> None:
        super().__init__(case, contender)
        # The same weights as mmdet's detector wherever it has them.
        self.model.load_state_dict(reference.state_dict(), strict=False)
        self.model.eval()
        self.model.test_cfg.score_thr = self._threshold(reference)
        self.model.bbox_head.test_cfg.score_thr = self.model.test_cfg.score_thr

    @torch.no_grad()
    def _threshold(self, reference: nn.Module) -> float:
        data = self.preprocess(training=False)
        was_training = reference.training
        reference.eval()
        logits = reference(data['inputs'][:1], mode='tensor')[0]
        reference.train(was_training)
        head = reference.bbox_head
        rows = [
            level.permute(0, 2, 3, 1).reshape(-1, head.cls_out_channels)
            for level in logits
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
        """One batch."""
        data = self.preprocess(training=False)
        with autocast(self.case):
            self.model(**data, mode='predict')


MODE_WORKLOADS = dict(compile=('head_loss',), channels_last=('train_step', 'inference'))


def check_mode(case: Case, contender: str) -> None:
    """Refuse a mode that the workload does not have.

    Raises:
        ValueError: Naming the contender, the workload and the way out.
    """
    mode = split_contender(contender)[1]
    if mode and case.workload not in MODE_WORKLOADS[mode]:
        raise ValueError(
            f'contender {contender!r}: +{mode} is for '
            f'{" and ".join(MODE_WORKLOADS[mode])}, not for {case.workload}'
        )


Workload = Union[HeadLoss, PostProcess, TrainStep, Inference]


def build_workloads(
    case: Case, contenders: tuple[str, ...]
) -> tuple[dict[str, Workload], int]:
    """Set every contender up for a case.

    Returns:
        The workloads by contender, and the number of anchors of one image.
    """
    for name in contenders:
        check_mode(case, name)
    scene = make_scene(case, build_slim_head(case, REFERENCE))
    if case.workload == 'head_loss':
        works = {name: HeadLoss(case, name, scene) for name in contenders}
    elif case.workload == 'postprocess':
        works = {name: PostProcess(case, name, scene) for name in contenders}
    elif case.workload == 'train_step':
        works = {name: TrainStep(case, name) for name in contenders}
    else:
        reference = build_detector(case, REFERENCE)
        works = {name: Inference(case, name, reference) for name in contenders}
    return works, scene.anchors
