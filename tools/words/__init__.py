"""The words of docs/glossary.md, held against the names and the prose of this repository.

glossary: reads the banned words. names: every name that a Python file defines. prose: docstrings, comments, errors and
pages. `python -m tools.words` reports prose; tests/words enforces names.
"""
