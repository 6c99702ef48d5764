"""GGUF files: their tensors as checkpoint tensors, their tokenizer as a tokenizer.json.

Knows nothing about where a GGUF comes from or where the result goes.
"""
