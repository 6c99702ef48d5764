"""The kitchen: token ids in, token ids out, many requests at once, in a process of its own.

Knows nothing about text, HTTP or the Hub.
"""
