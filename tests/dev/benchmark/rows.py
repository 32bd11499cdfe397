from mmdet_consistent.utils.timing import Summary
from tools.dev.benchmark.cases import Case
from tools.dev.benchmark.results import MEMORY, Row


def row(
    contender='consistent',
    part='total',
    ratio=0.4,
    spread=0.0,
    value=0.1,
    groups=('head_loss',),
    repetitions=9,
    anchors=1000,
    **case,
):
    """A row whose quartiles lie ``spread`` (a fraction) around the medians."""

    def around(x):
        return Summary(x, x * (1 - spread), x * (1 + spread))

    return Row(
        case=Case(**case),
        groups=groups,
        contender=contender,
        part=part,
        unit='MB' if part == MEMORY else 's',
        value=around(value),
        ratio=around(ratio),
        repetitions=repetitions,
        anchors=anchors,
    )


def growing(dimension, sizes, seconds, megabytes, contender='consistent'):
    """The rows of one growth series; ``anchors`` is set apart from the case."""
    rows = []
    for size, time, memory in zip(sizes, seconds, megabytes):
        options = dict(groups=(f'growth:{dimension}',), contender=contender)
        if dimension == 'anchors':
            options.update(anchors=size, height=size, width=size)
        else:
            options[dimension] = size
        rows.append(row(part='total', value=time, **options))
        rows.append(row(part=MEMORY, value=memory, **options))
    return rows
