"""Grid anchors and valid flags, kept from one training step to the next."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

# Shapes remembered. Batches of one aspect ratio share few shapes; an entry
# holds 17 bytes an anchor.
CAPACITY = 16


class Recent:
    """The results of the last few different calls.

    A copy starts empty: an averaged copy of a model has no use for them.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self.items: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What ``make()`` gave for this key, or gives now."""
        if key in self.items:
            self.items.move_to_end(key)
        else:
            self.items[key] = make()
            if len(self.items) > self.capacity:
                self.items.popitem(last=False)
        return self.items[key]

    def __deepcopy__(self, memo: dict) -> 'Recent':
        return Recent(self.capacity)

    def __reduce__(self) -> tuple:
        return Recent, (self.capacity,)
