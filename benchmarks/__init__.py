"""Our worker and the reference SDK through the same scenarios, in alternation, against one fake job service."""
