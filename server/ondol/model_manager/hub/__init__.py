"""The Hugging Face Hub: the account, who may have which model, what its files are, and fetching them.

The Hub's library does the talking. Knows nothing about the local store or about serving.
"""
