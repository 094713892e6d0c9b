"""Makes decisions durable, and brings them back after a restart.

port                 the contract
null, sqlite         the two journals
database, schema     SQLite's file; its tables and their migration
writer, lock         group commit in one thread; one process per file
"""
