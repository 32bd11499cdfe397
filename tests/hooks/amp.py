"""Training in float16 with a gradient scaler, where there is no GPU."""

import contextlib

import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module(force=True)
class CpuAmpOptimWrapper(AmpOptimWrapper):
    """mmengine's, but for what it builds: its scaler and float16 are CUDA's alone."""

    def __init__(self, init_scale, **kwargs):
        OptimWrapper.__init__(self, **kwargs)
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=init_scale)
        self._scale_update_param = None

    @contextlib.contextmanager
    def optim_context(self, model):
        half = torch.autocast('cpu', torch.float16)
        with OptimWrapper.optim_context(self, model), half:
            yield
