"""Trainings under random faults; see ``__main__``."""
