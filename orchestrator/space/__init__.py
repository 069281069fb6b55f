"""Search spaces: tree, grammar, constraints, enumeration."""
