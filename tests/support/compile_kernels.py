"""Compile every Triton kernel for some GPUs without having one; run it by itself.

The interpreter accepts what the compiler refuses; this finds it.
"""

import os

os.environ['TRITON_INTERPRET'] = '0'

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from mmdet_consistent.losses import focal_kernel
from mmdet_consistent.task_modules import match_kernel

TYPES = {'labels_ptr': '*i64', 'excluded_ptr': '*u8', 'num_gts_ptr': '*i64'}
TYPES |= {'top_ptr': '*i64', 'gt_inds_ptr': '*i64'}
TYPES |= dict.fromkeys(('alpha', 'pos_iou_thr', 'neg_iou_thr', 'min_pos_iou'), 'fp32')


def compile_kernel(kernel, capability, constants, types=(), **options):
    types = {**TYPES, **dict(types)}
    signature = {}
    for name in kernel.arg_names:
        default = '*fp32' if name.endswith('_ptr') else 'i32'
        signature[name] = types.get(name, default)
        if name in constants:
            signature[name] = 'constexpr'
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    target = GPUTarget('cuda', capability, 32)
    return triton.compile(source, target=target, options=options)


def main():
    for capability in (75, 90):
        for dtype, sets in (('fp32', 1), ('fp16', 3), ('bf16', 2)):
            constants = dict(
                SETS=sets,
                GAMMA=2.0 if sets == 1 else 1.5,
                ROWS=focal_kernel.ROWS,
                CLASSES=focal_kernel.CLASSES,
            )
            types = {'logits_ptr': f'*{dtype}', 'grad_ptr': f'*{dtype}'}
            for kernel in (focal_kernel._sums_kernel, focal_kernel._grad_kernel):
                compile_kernel(kernel, capability, constants, types)
        for flag in (False, True):
            for kernel, name in (
                (match_kernel._match_kernel, 'FIND_TOPS'),
                (match_kernel._low_quality_kernel, 'ALL'),
            ):
                constants = {name: flag, 'BOXES': match_kernel.BOXES}
                built = compile_kernel(
                    kernel, capability, constants, enable_fp_fusion=False
                )
                assert 'fma.' not in built.asm['ptx']  # overlaps are exact
        print(f'compiled for sm_{capability}')


if __name__ == '__main__':
    main()
