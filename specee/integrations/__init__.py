"""Where specee meets other libraries."""
