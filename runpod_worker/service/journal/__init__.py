"""What makes decisions durable.

port                            the port
memory, sqlite                  the two stores
database, writer, cache         SQLite's file, group commit, what stays in memory
sqlite_keys                     keys in the same file
"""
