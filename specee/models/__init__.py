"""Checkpoints of every format -> one weight table, and the tokenizers that belong to them."""
