"""wicketgate: a self-hosted EC2 Instance Connect Endpoint.

The house is cut by the stage of a decision; docs/DESIGN.md section 3 draws it and tests/test_layers.py keeps it.
"""

__version__ = "0.1.0"
"""The version, for the package's metadata, `wicketgate --version` and what clients say of themselves."""
