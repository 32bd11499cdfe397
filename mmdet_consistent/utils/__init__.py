"""Small helpers of the tools."""


def register_all_modules(init_default_scope: bool = True) -> None:
    """Register mmdet's modules, ours among them: mmengine's hub asks for this.

    Args:
        init_default_scope: Whether to make mmdet the default scope.
    """
    import mmdet.utils

    mmdet.utils.register_all_modules(init_default_scope)
