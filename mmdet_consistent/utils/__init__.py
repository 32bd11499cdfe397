"""Helpers that several parts share: configs, errors, atomic files, tables, timing."""


def register_all_modules(init_default_scope: bool = True) -> None:
    """Register mmdet's modules and ours; mmengine's hub looks for this function.

    Args:
        init_default_scope: Whether to make mmdet the default scope.
    """
    import mmdet.utils

    mmdet.utils.register_all_modules(init_default_scope)
