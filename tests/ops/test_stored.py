"""All operators that mmcv compiles for a CPU, against what compiled mmcv computed.

The values come from ``python -m tests.ops.data.make``, so that these tests run
wherever mmcv is not compiled, too.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.operators import assert_equal, ours, stored_cases

CASES = stored_cases()


@pytest.fixture(scope='module')
def stored():
    with np.load(Path(__file__).parent / 'data/compiled.npz') as archive:
        return dict(archive)


@pytest.mark.parametrize('name', CASES)
def test_operator_computes_what_compiled_mmcv_computed(stored, name):
    found = CASES[name](ours)
    assert_equal(
        found, [torch.from_numpy(stored[f'{name}/{i}']) for i in range(len(found))]
    )


def test_stored_cases_are_those_of_the_tests(stored):
    assert {name.rpartition('/')[0] for name in stored} - {''} == set(CASES)
