"""Generated blocks in pages that are otherwise written by hand."""


def with_block(page: str, name: str, content: str) -> str:
    """Replace the text between ``<!-- name:begin -->`` and ``<!-- name:end -->``.

    Args:
        page: Text of the page.
        name: Name of the block.
        content: New text of the block.

    Returns:
        The page with the new block.

    Raises:
        ValueError: If the page lacks one of the two markers.
    """
    before, begin, rest = page.partition(f'<!-- {name}:begin -->')
    _, end, after = rest.partition(f'<!-- {name}:end -->')
    if not begin or not end:
        raise ValueError(
            f'the page needs the lines <!-- {name}:begin --> and <!-- {name}:end -->'
        )
    return f'{before}{begin}\n{content}\n{end}{after}'
