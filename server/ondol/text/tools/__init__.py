"""Tool calls: how each family of models writes them, read from its text and forced by a grammar.

Knows nothing about HTTP, or about which tool does what. Invariant: text that is no tool call leaves
the room unchanged.
"""
