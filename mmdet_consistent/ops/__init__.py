"""mmcv's compiled operators in PyTorch, for an mmcv that was installed without them.

mmcv-lite, and mmcv built without a compiler, lack one module: ``mmcv._ext``. Importing
this package makes Python find ``extension.py`` under that name, but only where mmcv
has no such module of its own: compiled mmcv always wins. It must be imported before
``mmcv.ops`` and mmdet's models; ``import mmdet_consistent`` does so first of all.

``MMDET_CONSISTENT_OPS=torch`` in the environment prefers these operators to compiled
ones, for instance because mmcv was compiled for another PyTorch.
"""

import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Optional

VARIABLE = 'MMDET_CONSISTENT_OPS'


class OperatorFinder(MetaPathFinder):
    """Finds ``mmcv._ext`` in this folder."""

    def find_spec(
        self,
        fullname: str,
        path: Optional[Sequence[str]] = None,
        target: Optional[ModuleType] = None,
    ) -> Optional[ModuleSpec]:
        """Return the module's specification, or None for any other name."""
        if fullname != 'mmcv._ext':
            return None
        source = Path(__file__).with_name('extension.py')
        return importlib.util.spec_from_file_location(fullname, source)


def require_mmdet() -> None:
    """Check that MMDetection and its two libraries are installed.

    Raises:
        ImportError: If one is missing. The message names the two families.
    """
    families = ('mmengine', 'mmcv', 'mmdet')
    missing = [name for name in families if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f'mmdet_consistent needs MMDetection, but {", ".join(missing)} cannot be '
            "imported; install OpenMMLab's packages with `pip install "
            '"mmdet_consistent[openmmlab]"` or the maintained forks with `pip install '
            '"mmdet_consistent[onedl]"`'
        )


def provide_operators() -> None:
    """Let Python find ``mmcv._ext`` here, after or before mmcv's own.

    Raises:
        ValueError: If MMDET_CONSISTENT_OPS is neither ``auto`` nor ``torch``.
        ImportError: If it is ``torch``, but mmcv's operators are imported already.
    """
    choice = os.environ.get(VARIABLE, 'auto')
    if choice not in ('auto', 'torch'):
        raise ValueError(f"{VARIABLE} is {choice!r}; use 'auto' (default) or 'torch'")
    if choice == 'auto':
        sys.meta_path.append(OperatorFinder())
    elif 'mmcv._ext' in sys.modules:
        raise ImportError(
            f'{VARIABLE}=torch has no effect because mmcv.ops was imported before '
            'mmdet_consistent; import mmdet_consistent first'
        )
    else:
        sys.meta_path.insert(0, OperatorFinder())


require_mmdet()
provide_operators()
