"""The same handlers under RunPod's SDK and under ours, and what each says to the job service.

`python -m tools.differential` prints the table and writes docs/compatibility.md.
"""
