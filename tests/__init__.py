"""The test suite of pmp_ref."""
