"""What can go wrong in a conversation, as sentences that can be said in two languages.

Knows nothing about where it went wrong. Invariant: an error is one sentence that says what to do.
"""


class ChatError(Exception):
    """`template` is English and the key of its translation; `values` go into its places."""

    def __init__(self, template: str, **values: object) -> None:
        super().__init__(template.format(**values))
        self.template = template
        self.values = values
