"""Generator of the documents that are made from data; see ``__main__``."""
