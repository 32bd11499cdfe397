"""Export to ONNX. Needs the extra ``mmdet_consistent[export]``."""

from .deployable import DeployableDetector
from .onnx_file import export_onnx

__all__ = ['DeployableDetector', 'export_onnx']
