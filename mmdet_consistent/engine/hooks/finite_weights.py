"""Keeps weights that are not finite out of checkpoints."""

from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..architecture import unwrapped
from ..checkpoint import SpoiltWeightsError, not_finite, spoilt


class FiniteWeightsMixin(Hook):
    """Refuses to save weights or optimizer states that are NaN or infinite.

    A gradient may be NaN although the loss is finite. The spoilt weights would replace
    good ones, and resumed training would never recover.

    Attributes:
        constants: Names of weights that were not finite before training.
    """

    constants: frozenset[str] = frozenset()

    def before_run(self, runner: Runner) -> None:
        """Find the constants of the new model."""
        self.constants = frozenset(not_finite(unwrapped(runner.model).state_dict()))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Stop before the checkpoint is written.

        Raises:
            SpoiltWeightsError: If weights are not finite. The message names one.
        """
        found = spoilt(checkpoint, self.constants)
        if found:
            meta = checkpoint.get('meta', {})
            raise SpoiltWeightsError(
                f'epoch {meta.get("epoch")}, iteration {meta.get("iter")}: no '
                f'checkpoint is saved, since {found}: a gradient was not finite, '
                'though the loss was. Earlier checkpoints are good: --resume goes on '
                'from the last one, if there is one. To find the operation, train with '
                'torch.autograd.set_detect_anomaly(True)'
            )
