"""What is in a model, and whether it fits: answered from config.json and safetensors headers.

Knows nothing about serving or terminals. Invariant: no weight is read unless `--loaded` asks for it.
"""
