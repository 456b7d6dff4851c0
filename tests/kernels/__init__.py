"""Single operations of the C++ engine, on every instruction set, against plain numpy."""
