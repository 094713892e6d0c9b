"""What makes decisions durable and brings them back.

port                 the contract
null, sqlite         the two journals
database, schema     SQLite's file; its tables and their migration
writer, lock         group commit in one thread; one process a file
"""
