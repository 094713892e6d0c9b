"""The handler of a worker under test; docs/conformance.md specifies it.

worker  on this package
sdk     on RunPod's SDK
"""
