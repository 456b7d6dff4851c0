"""Results as something to read: tables for a terminal, one HTML file with plots."""
