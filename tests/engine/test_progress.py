import io
from types import SimpleNamespace

from mmdet_consistent import ProgressHook


def runner_at(iteration, head=None):
    return SimpleNamespace(
        iter=iteration,
        max_iters=4,
        epoch=iteration // 2,
        max_epochs=2,
        model=SimpleNamespace(bbox_head=head),
    )


def test_progress_hook_keeps_every_step_and_prints_the_last():
    stream = io.StringIO()
    hook = ProgressHook('net', runs_left=1, interval=1e9, stream=stream)
    for step in range(4):
        hook.before_train_iter(runner_at(step), step)
        hook.after_train_iter(
            runner_at(step), step, outputs={'loss': 2.5, 'num_pos': step}
        )
    assert hook.num_pos == {'num_pos': [0, 1, 2, 3]}
    assert len(hook.step_seconds) == 4
    last = stream.getvalue().splitlines()[-1]
    assert last.startswith('net: epoch 2/2, 100 %, loss 2.500, about')


def test_progress_hook_counts_positives_of_mmdets_own_heads():
    sampled = [SimpleNamespace(pos_inds=[1, 2]), SimpleNamespace(pos_inds=[3])]
    head = SimpleNamespace(_raw_positive_infos={'sampling_results': sampled})
    hook = ProgressHook('net', stream=io.StringIO())
    hook.before_train_iter(runner_at(0, head), 0)
    hook.after_train_iter(runner_at(0, head), 0, outputs={'loss': 1.0})
    assert hook.num_pos == {'num_pos': [3.0]}
