"""Results to the bit, or to a derived tolerance."""
