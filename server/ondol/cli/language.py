"""The language of the terminal: English sentences are the keys, Korean ones their translations.

Knows nothing about commands. Invariant: a sentence without a translation appears in English, whole.
"""


def tr(english: str, **values: object) -> str:
    """The sentence in the user's language, with `{name}` places filled from `values`."""
    return english.format(**values) if values else english
