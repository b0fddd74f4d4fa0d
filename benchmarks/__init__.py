"""Measurements behind the constants of the toolkit: nothing here is needed to use it."""
