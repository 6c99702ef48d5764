"""A conversation with a model in the terminal, over any OpenAI-compatible server.

It stands by itself: nothing but openai, prompt-toolkit and wcwidth is imported, and modules find each
other by relative imports, for the package is `repl` beside chat.py and `ondol.cli.repl` in the daemon's
own package. Invariant: there is one REPL; `ondol chat` is this one.
"""
