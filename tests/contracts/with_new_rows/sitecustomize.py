"""Imported by every Python process that has this folder on PYTHONPATH: adds the new rows."""

from tests.contracts.new_rows import add_rows

add_rows()
