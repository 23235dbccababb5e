"""What can be told of a graph without running it: constants, types, scopes."""
