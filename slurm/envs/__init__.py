"""How environments are made: definitions, interpreters, package indexes, conda, uv, locks. Standard library only."""
