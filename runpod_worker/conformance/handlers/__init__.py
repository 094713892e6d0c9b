"""The handler that a worker serves while it is checked, for two SDKs. docs/conformance.md says what it has to do."""
