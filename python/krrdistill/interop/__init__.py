"""The package in the conventions of other libraries: one module for each, which alone imports it."""
