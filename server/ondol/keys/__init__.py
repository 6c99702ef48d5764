"""API keys: who holds one, what it allows, and how much of that is used up.

Knows nothing about HTTP or terminals. Invariant: a key itself is shown once, when it is made; what is
kept is its digest.
"""
