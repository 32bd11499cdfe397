"""Store what compiled mmcv computes for the cases of tests/support/operators.py.

Run in an environment with compiled mmcv:  python -m tests.ops.data.make
"""

from pathlib import Path

import mmcv
import numpy as np
import torch

from tests.support.operators import compiled, stored_cases

FILE = Path(__file__).with_name('compiled.npz')


def main() -> None:
    """Write compiled.npz."""
    if compiled is None:
        raise SystemExit('mmcv is installed without compiled operators')
    arrays = {
        f'{name}/{number}': tensor.numpy()
        for name, case in stored_cases().items()
        for number, tensor in enumerate(case(compiled))
    }
    about = f'mmcv {mmcv.__version__}, torch {torch.__version__}'
    np.savez_compressed(FILE, about=about, **arrays)
    print(f'wrote {FILE.name}: {len(arrays)} arrays of {about}')


if __name__ == '__main__':
    main()
