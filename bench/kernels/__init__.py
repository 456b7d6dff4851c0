"""Microbenchmarks of every operation of the CPU engine, beside torch, with pytest-benchmark; of the Triton
kernels in :mod:`.triton`.

    pytest bench/kernels [--quick] [--model NAME]... [--rows N]... [--format NAME]... [--threads N]

Each case first checks its result against :mod:`.references`, then takes turns with torch. Its ``extra_info``
holds what it moved and computed, and which share that is of what the machine can do.
"""
