"""Fitting a speculator to a frozen model, on texts that the model writes itself."""
