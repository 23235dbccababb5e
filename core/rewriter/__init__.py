"""Applies passes: matches become replacements, each of them a transaction."""
