"""What a run did: the report's schema, and its renderings for people."""
