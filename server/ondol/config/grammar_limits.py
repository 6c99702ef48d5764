"""How much work one grammar may cause; the API process checks with the bounds that the engine keeps.

Knows llguidance's limits, no settings. Invariant: a grammar that passes the check compiles in the engine.
"""

from llguidance import LLParserLimits

# A lexer state takes one or two kilobytes: 100 MB for the worst grammar, where llguidance's own limit
# allows half a gigabyte. Grammars that people write use a few hundred.
MAX_LEXER_STATES = 50_000


def parser_limits() -> LLParserLimits:
    """Bounds in steps of work, not in seconds: the same grammar ends the same way on any machine."""
    return LLParserLimits(max_lexer_states=MAX_LEXER_STATES, verbose_errors=False)
