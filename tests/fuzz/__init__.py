"""GGUF files built to break the loader. scripts/fuzz_gguf.py runs this package without the other tests."""
