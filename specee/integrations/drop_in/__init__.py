"""Our decoding loop in the place of transformers' own."""
