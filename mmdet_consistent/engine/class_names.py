"""Compare the class names in a checkpoint with those of a data set."""

from typing import Any


def trained_names(checkpoint: dict) -> list[str]:
    """Return the classes that a checkpoint was trained with; none if it has no names.

    mmdet before 3.0 stored them as ``CLASSES``.
    """
    meta = checkpoint.get('meta') or {}
    for place in (meta.get('dataset_meta'), meta):
        for key in ('classes', 'CLASSES'):
            names = place.get(key) if isinstance(place, dict) else None
            if names:
                return [names] if isinstance(names, str) else list(names)
    return []


def dataset_names(metainfo: Any) -> list[str]:
    """Return the classes in the metainfo of a data set, or of the first joined one."""
    if isinstance(metainfo, (list, tuple)):  # mmdet's joined sets, if they differ
        metainfo = metainfo[0]
    return list((metainfo or {}).get('classes') or ())


def other_names(trained: list[str], tested: list[str]) -> str:
    """Say how the classes of a checkpoint differ from those of a data set.

    Returns:
        The end of a sentence that begins with the checkpoint; empty if both agree, or
        one has no names.
    """
    if not trained or not tested or trained == tested:
        return ''
    return (
        f'was trained with the classes {trained}, but the data set has {tested}: a '
        'label means another class, unless only names were changed. Use the order of '
        'the training in the metainfo of the data set and in its annotation file'
    )
