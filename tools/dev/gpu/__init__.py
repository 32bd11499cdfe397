"""What the head's loss costs on a GPU: counted without one, and checked on one."""
