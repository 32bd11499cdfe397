"""Cost of the head's loss on a GPU: counted without one, and checked on one."""
