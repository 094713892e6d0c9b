"""Runs the same handlers under RunPod's SDK and under this package, and compares their requests to the job service.

`python -m tools.differential` prints the table and writes docs/compatibility.md.
"""
