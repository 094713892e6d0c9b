"""The protocol between the agent and an executor.

messages   what the two send each other
channel    how messages travel: one Unix socket pair
"""
