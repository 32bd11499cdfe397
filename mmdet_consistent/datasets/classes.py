"""Class names of built data sets, wrappers included."""

from collections.abc import Iterator, Sequence
from typing import Any, Optional

from ..utils.errors import ConfigError
from .checked import CheckedMixin


def inner_datasets(dataset: Any) -> Iterator[Any]:
    """Yield the data sets in a built one, without wrappers."""
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    if inner == [None]:
        yield dataset
    else:
        for other in inner:
            yield from inner_datasets(other)


def dataset_classes(dataset: Any, field: str) -> Optional[Sequence[str]]:
    """Return the class names that all data sets in a wrapper share.

    Args:
        dataset: The data set, built; a joined one may differ in all but the classes.
        field: Its config field, for the message.

    Returns:
        The class names; None if no data set has any.

    Raises:
        ConfigError: If the classes differ, are one string, or are not all among the
            categories of the annotation file.
    """
    shared: Optional[Sequence[str]] = None
    incomplete = []
    parts = list(inner_datasets(dataset))
    for part in parts:
        classes = getattr(part, 'metainfo', {}).get('classes')
        if classes is None:
            continue
        if isinstance(classes, str):
            raise ConfigError(
                f'{field}.metainfo.classes={classes!r} is a string, not a tuple of '
                f'names: with a single class, write classes=({classes!r},)'
            )
        if shared is not None and list(classes) != list(shared):
            raise ConfigError(
                f'{field} joins data sets of other classes, ({", ".join(shared)}) and '
                f'({", ".join(classes)}): give all of them the same metainfo.classes'
            )
        shared = classes
        # A checked data set has made sure that the others have their own labels.
        ids = getattr(part, 'cat_ids', classes)
        if len(ids) != len(classes):
            incomplete.append((part, len(ids)))
    for part, number in incomplete:
        if isinstance(part, CheckedMixin) and len(incomplete) < len(parts):
            continue
        raise ConfigError(
            f'{getattr(part, "ann_file", field)} knows only {number} of the '
            f'{len(shared or ())} classes in {field}.metainfo.classes '
            f'({", ".join(shared or ())}): use the names under "categories" in the file'
        )
    return shared
