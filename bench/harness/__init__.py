"""A small generative task for lm-evaluation-harness, and running it: the harness as its package has it."""
