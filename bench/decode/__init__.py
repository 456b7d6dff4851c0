"""End-to-end decoding: exactness against transformers, speed beside it, memory."""
