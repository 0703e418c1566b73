"""Text from files, such as names of labels and cases, for a terminal: what a terminal would obey is shown instead."""


def printable(text: str) -> str:
    r"""Returns a text of one line in which control codes, and bytes that are no text, are shown as escapes.

    A terminal obeys such codes: they move its cursor, change its title or reverse the direction of a line.

    Example:
        >>> printable("liver"), printable("Müller \x1b[31mred")
        ('liver', 'Müller \\x1b[31mred')
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
